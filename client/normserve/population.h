// Moments in and out of sessions and models: what is observed, merged and calibrated.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "normserve/call_options.h"
#include "normserve/statistics.h"
#include "normserve/tensor.h"

namespace normserve::client {

// Data of one session or of a model's layers: one of the three, or none.
struct Data {
  std::optional<Moments> moments = {};         // of a single session
  std::map<std::string, Moments> layers = {};  // of a model, by the session's name without the prefix
  std::optional<TensorView> batch = {};        // of a single session: the server takes its moments; valid in the call
};

// Options of one Observe.
struct ObserveOptions {
  std::string part_id = {};  // under one id data count once, however often they are sent; empty: as often as they are
  bool dry_run = false;      // answer as if they had been added
  bool reset = false;        // begin anew; Diagnose compares with what was observed before
  CallOptions call = {};
};

// What one session has observed.
struct Observed {
  std::string name;
  std::string uid;
  int64_t generation = 0;
  int64_t count = 0;               // values a channel, of all that was observed
  std::optional<Moments> moments;  // of a dry run: what they would be
};

// Which moments of a session.
enum class MomentsSource {
  kObserved = 1,        // what Observe was told
  kLastBatch = 2,       // of the newest batch that updated the running statistics
  kShadow = 3,          // of all that updated the shadow moments since SHADOW began
  kObservedBefore = 4,  // what had been observed at the last reset that found any
};

// Options of one ReadMoments.
struct MomentsOptions {
  MomentsSource source = MomentsSource::kObserved;
  int64_t first_channel = 0;  // of a single session, as the next
  int64_t num_channels = 0;   // 0: all from first_channel on
  CallOptions call = {};
};

struct SessionMoments {
  std::string name;
  std::string uid;
  int64_t generation = 0;
  Moments moments;            // count 0 and empty: no data so far
  int64_t first_channel = 0;  // the first one in `moments`
};

// How parts become one.
enum class MergePolicy {
  kExact = 1,      // all values as if they had been one batch
  kWeighted = 2,   // means and variances averaged by count, for comparison: drops the variance between the parts
  kKeepLocal = 3,  // the session stays as it is, the reply compares
};

// One site's, worker's or batch's share of a merge.
struct MomentsPart {
  std::string id;
  Data data;  // no batch
};

// Options of one Merge.
struct MergeOptions {
  MergePolicy policy = MergePolicy::kExact;  // at the commit
  bool commit = false;                       // merge what is here
  bool drop = false;                         // forget it; without parts
  CallOptions call = {};
};

// How one session's merge stands.
struct Merged {
  std::string name;
  std::string uid;
  int64_t generation = 0;  // after the call; of a merge that was committed before, that of its commit
  int64_t num_parts = 0;
  bool committed = false;                // only then there are the following
  std::optional<Moments> merged;         // of all parts together; nothing with kKeepLocal
  std::vector<double> variance_within;   // [C], biased, within the parts
  std::vector<double> variance_between;  // [C], of the parts' means around the common one
};

// What population statistics are made of batches.
enum class Estimator {
  kPooled = 1,      // mean and unbiased variance of all values, whatever the batches' sizes
  kAlgorithm2 = 2,  // Ioffe & Szegedy 2015: E[mean] and m/(m-1) E[variance], batches of one size m
};

// Options of one Calibrate.
struct CalibrateOptions {
  std::string part_id = {};                  // names the batch; required with data
  Estimator estimator = Estimator::kPooled;  // at the commit
  bool commit = false;                       // make the statistics of what is here
  std::string to_snapshot = {};              // with commit: they become this snapshot, the session stays
  bool drop = false;                         // forget it; without data
  CallOptions call = {};
};

// How one session's calibration stands.
struct Calibrated {
  std::string name;
  std::string uid;
  int64_t generation = 0;  // after the call; of a calibration that was committed before, that of its commit
  int64_t num_batches = 0;
  bool committed = false;           // only then there are the following
  RunningStatistics before, after;  // the running ones before the commit; the population's
};

}  // namespace normserve::client
