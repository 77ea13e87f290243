// What Stats tells beside the statistics themselves. normserve.v1 (stats_view.proto) has the words in full.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace normserve::client {

// How much of a session's statistics is asked for.
enum class StatsView {
  kUnspecified = 0,  // kChannels
  kSummary = 1,      // the layer in a few numbers, and flags with the first 100 channels each: no vectors
  kChannels = 2,     // a number a channel, and flags with all their channels
};

// What the running statistics are compared with.
enum class ComparisonSource {
  kLastBatch = 1,  // the newest batch that updated them
  kShadow = 2,     // the shadow moments
  kObserved = 3,   // what Observe was told
};

// How far data lie from the running statistics. Vectors [C], of the channels asked for; NaN: there is nothing to tell.
struct Comparison {
  ComparisonSource source = ComparisonSource::kLastBatch;
  int64_t count = 0;                   // values a channel of the data; 0: there are none, and all vectors are empty
  std::vector<double> kl_divergence;   // of the two normals, data || running, in nats
  std::vector<double> wasserstein;     // 2-Wasserstein distance of the two normals, in the values' own unit
  std::vector<double> mean_z;          // difference of the means in standard errors
  std::vector<double> variance_ratio;  // F: the data's unbiased variance as a share of the running one
  std::vector<double> variance_z;      // the same as a standard normal score
};

// Over the channels, those that are not finite left out; low and high: 5 % and 95 %.
struct Quantiles {
  double min = 0, low = 0, median = 0, high = 0, max = 0;
};

// A layer in a few numbers, of all its channels. Nothing: there is nothing finite to take it from.
struct StatsSummary {
  int64_t num_features = 0;
  std::optional<Quantiles> running_mean, running_var;
  int64_t batch_count = 0;                          // values a channel of the newest training batch; 0: none is known
  std::optional<Quantiles> batch_mean, batch_var;   // of that batch, the variance biased
  std::map<std::string, int64_t> flagged_channels;  // how many channels have each flag, such as "DEAD"
  // Only with compare_with. How far the layer has drifted, which layers are ranked by: root mean square over the
  // channels of wasserstein as a share of sqrt(running_var + epsilon).
  std::optional<double> drift = {};
  std::optional<Quantiles> kl_divergence, wasserstein, mean_z, variance_z;
};

// Which points of a session's history are asked for: all that are kept, to begin with.
struct HistoryRange {
  std::optional<absl::Time> since = {};          // only those of this time or later, by the server's clock
  std::optional<int64_t> after_generation = {};  // only those whose generation is above this
};

// A training batch that was folded into the running statistics, or a replacement of these.
struct HistoryPoint {
  int64_t update = 0;  // batches that the session had folded in by then, this one too; never set back
  int64_t generation = 0;
  int64_t num_batches_tracked = 0;
  absl::Time time;          // by the server's clock
  int64_t count = 0;        // values a channel of the batch; 0: no batch, the running statistics were replaced
  int64_t num_samples = 0;  // N of the batch
  // Over the channels: of the running statistics afterwards, and of the batch, its variance biased. Nothing: not kept
  // of this point, or not finite.
  std::optional<Quantiles> running_mean, running_var, batch_mean, batch_var;
  // Evaluation's output less training's on this batch, with the running statistics as they were afterwards: root mean
  // square over all values, as a share of the weight's.
  std::optional<double> relative_gap = {};
};

}  // namespace normserve::client
