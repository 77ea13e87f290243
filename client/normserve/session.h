// A session: one batch-norm layer held by the server.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "absl/time/time.h"
#include "normserve/statistics.h"

namespace normserve::client {

// A name for what a Forward does by default.
enum class Mode {
  kUnspecified =
      0,        // in a request: the session's mode (at creation: kTrain); in a reply: one this library has no name for
  kTrain = 1,   // normalise with the batch's own statistics and fold them into the running ones
  kEval = 2,    // normalise with the running statistics and change nothing
  kShadow = 3,  // as kEval, and keep the batches' moments beside the state
};

// How running statistics are usually kept elsewhere: the defaults of SessionConfig's other fields.
enum class Convention { kUnspecified = 0, kPyTorch = 1, kKeras = 2, kFlax = 3, kOnnx = 4 };

// Which variance of a batch the running variance follows; unset: the convention's.
enum class RunningVariance { kUnspecified = 0, kUnbiased = 1, kBiased = 2 };

// What happens to a batch that would update but is not finite; unset: kReject.
enum class NonFinitePolicy { kUnspecified = 0, kReject = 1, kSkipUpdate = 2 };

// How the running statistics follow the batches.
enum class Averaging {
  kExponential,   // weight `momentum`
  kCumulative,    // every batch counts the same: PyTorch's momentum=None
  kZeroDebiased,  // exponential, without the weight of what it started from
};

// What a change of a session has survived once it is acknowledged. Where a server reports one, nothing means a level
// that this library has no name for.
enum class Durability {
  kNone = 1,    // in memory only: the session ends with the server
  kCommit = 2,  // in the journal before the reply: survives a crash or kill of the server
  kFlush = 3,   // synced to the disk before the reply: survives power loss
};

// The user's own words about a session, for ListSessions to filter by: at most 64; keys of 1 to 63 bytes and values of
// up to 255 bytes, printable ASCII.
using Labels = std::map<std::string, std::string>;

// What a session is created with. Every default is PyTorch's.
struct SessionConfig {
  int64_t num_features = 0;             // channels, C; required
  std::optional<double> epsilon = {};   // added to the variance before the root; unset: the convention's, 1e-5
  std::optional<double> momentum = {};  // weight of the newest batch; unset: the convention's, 0.1; not for kCumulative
  Averaging averaging = Averaging::kExponential;
  std::optional<bool> affine = {};               // whether weight and bias follow; unset: true
  std::optional<bool> track_running_stats = {};  // unset: true; false: batch statistics in every mode
  RunningVariance running_variance = RunningVariance::kUnspecified;
  NonFinitePolicy non_finite_policy = NonFinitePolicy::kUnspecified;
  // Unset: kCommit if the server has a data directory, else kNone. kCommit and kFlush of a server without one are
  // FAILED_PRECONDITION (DURABILITY_UNAVAILABLE).
  std::optional<Durability> durability = {};
  Labels labels = {};
  Convention convention = Convention::kUnspecified;  // unset: kPyTorch
};

// A session as the server describes it.
// Parts of a merge or calibration that a session keeps until they are committed or dropped.
struct OpenCollection {
  std::string id;
  int64_t num_parts = 0;
  int64_t count = 0;  // values a channel, of all parts
};

struct Session {
  std::string name;
  std::string uid;       // random, new on create and clone: tells a session from a later one of the same name
  SessionConfig config;  // with every default written out
  Mode mode = Mode::kUnspecified;
  int64_t generation = 0;           // changes that the state has seen; never set back
  int64_t num_batches_tracked = 0;  // training batches folded in so far
  absl::Time create_time;
  absl::Time update_time;
  std::optional<Parameters> parameters;         // only where they were asked for, and if the session is affine
  std::optional<RunningStatistics> statistics;  // only where they were asked for, and if the session tracks them
  std::optional<Durability> durability;         // the level in force
  int32_t num_snapshots = 0;                    // snapshots kept
  std::vector<OpenCollection> open_merges;      // where the session alone was asked for
  std::vector<OpenCollection> open_calibrations;
};

// A state that the server keeps under a name: configuration, mode, parameters, running statistics and their count.
struct Snapshot {
  std::string name;        // of the session
  std::string snapshot;    // of the snapshot, unique in its session
  std::string uid;         // of the session
  int64_t generation = 0;  // of the state that was kept
  absl::Time create_time;
  int64_t size_bytes = 0;           // what it is charged with
  int64_t num_batches_tracked = 0;  // training batches folded into its statistics
};

// A session that is gone.
struct DeletedSession {
  std::string name;
  std::string uid;
  int64_t generation = 0;  // its last
};

}  // namespace normserve::client
