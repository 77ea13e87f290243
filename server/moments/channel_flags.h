// What is wrong with a channel, seen from its statistics and parameters alone; and a layer in a few numbers.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "kernels/batch_norm.h"

namespace normserve {

enum class ChannelFlag : uint8_t {
  // Every variance known is at most kDeadShare * epsilon: the output is bias within 3 % of weight, whatever comes.
  kDead,
  // The batch's variance is exactly 0 with two values or more: the output in training is exactly bias.
  kConstant,
  // A variance is above kHugeVariance, ...
  kExplodingAbsolute,
  // ... or above kHugeRatio times the median of the layer's variances of its kind that are not 0.
  kExplodingRelative,
  // A mean, a variance, a weight or a bias is NaN or infinite, or a variance is negative: so is the output, or NaN.
  kNonFinite,
  // No batch was ever folded in, and mean and variance are still the initial ones. (With other values and no batch
  // counted they were loaded: old files have no num_batches_tracked.)
  kNeverUpdated,
  // weight is 0: the output is bias and no gradient reaches what comes before. Weight decay and pruning do this.
  kFrozenAffine,
  // The batch has one value a channel: its variance is none, training with it is an error.
  kBatchTooSmall,
  // The batch has 2 to kNoisyCount - 1 values a channel: sqrt(2 / (n - 1)) of its variance is noise, 37 % or more.
  kNoisyBatch,
};
inline constexpr size_t kNumChannelFlags = 9;

inline constexpr double kDeadShare = 1e-3;
inline constexpr double kHugeVariance = 1e12;
inline constexpr double kHugeRatio = 1e6;
inline constexpr int64_t kNoisyCount = 16;

// "DEAD" and so on.
absl::string_view ChannelFlagName(ChannelFlag flag);

// The flags of one channel.
class ChannelFlags {
 public:
  bool Has(ChannelFlag flag) const { return (bits_ >> static_cast<int>(flag)) & 1; }
  bool Any() const { return bits_ != 0; }
  void Set(ChannelFlag flag) { bits_ |= 1u << static_cast<int>(flag); }

  friend bool operator==(const ChannelFlags&, const ChannelFlags&) = default;

 private:
  uint32_t bits_ = 0;
};

// One layer as its session knows it. Spans of length C, or empty where said; what they point at outlives the call.
struct LayerStatistics {
  absl::Span<const double> running_mean;      // empty: running statistics are not kept
  absl::Span<const double> running_variance;  // as long as running_mean
  absl::Span<const double> initial_mean;      // what the running statistics began as; empty: 0
  absl::Span<const double> initial_variance;  // empty: 1
  int64_t num_batches_tracked = 0;            // batches folded in since then
  absl::Span<const float> weight;             // empty: 1
  absl::Span<const float> bias;               // empty: 0
  double epsilon = 1e-5;                      // added to a variance before the root
};

// OK if what is there has `num_features` values; else INVALID_ARGUMENT (SHAPE_MISMATCH) that names the vector. Of
// `batch` the vectors may be empty where count is 0; INVALID_ARGUMENT (INVALID_FIELD): a negative count or epsilon.
absl::Status CheckLayer(const LayerStatistics& layer, const Moments& batch, size_t num_features);

// The flags of each of `num_features` channels. `batch` with count 0 is no evidence. CheckLayer must have been OK.
std::vector<ChannelFlags> FlagChannels(const LayerStatistics& layer, const Moments& batch, size_t num_features);

// Over the channels, those that are not finite left out; between two of them linearly (R's type 7).
struct Quantiles {
  double min, low, median, high, max;  // low and high: 5 % and 95 %

  friend bool operator==(const Quantiles&, const Quantiles&) = default;
};

// Nothing where `values` has no finite one.
std::optional<Quantiles> QuantilesOf(absl::Span<const double> values);

// A layer in a few numbers. Absent: there is nothing finite to take them from.
struct LayerSummary {
  std::optional<Quantiles> running_mean, running_variance;
  std::optional<Quantiles> batch_mean, batch_variance;     // the variance biased
  std::array<int64_t, kNumChannelFlags> num_flagged = {};  // channels, by ChannelFlag

  int64_t NumFlagged(ChannelFlag flag) const { return num_flagged[static_cast<size_t>(flag)]; }
};

// `flags` as FlagChannels gave them for the same layer and batch.
LayerSummary Summarize(const LayerStatistics& layer, const Moments& batch, absl::Span<const ChannelFlags> flags);

}  // namespace normserve
