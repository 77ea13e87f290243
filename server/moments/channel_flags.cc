#include "server/moments/channel_flags.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/error_reason.h"

namespace normserve {
namespace {

constexpr std::array<absl::string_view, kNumChannelFlags> kNames = {
    "DEAD",          "CONSTANT",      "EXPLODING_ABSOLUTE", "EXPLODING_RELATIVE", "NON_FINITE",
    "NEVER_UPDATED", "FROZEN_AFFINE", "BATCH_TOO_SMALL",    "NOISY_BATCH"};

// `values` in order, of which `share` lie below what is returned.
double QuantileOfSorted(absl::Span<const double> values, double share) {
  const double position = share * static_cast<double>(values.size() - 1);
  const auto below = static_cast<size_t>(position);
  const size_t above = std::min(below + 1, values.size() - 1);
  const double fraction = position - static_cast<double>(below);
  // Not a + f (b - a), which overflows for values of either sign.
  return values[below] * (1 - fraction) + values[above] * fraction;
}

// The median of those above 0 and finite; 0 if there are none.
double MedianAboveZero(absl::Span<const double> variances) {
  std::vector<double> positive;
  for (double variance : variances) {
    if (variance > 0 && std::isfinite(variance)) positive.push_back(variance);
  }
  if (positive.empty()) return 0;
  // As QuantileOfSorted, without sorting more than the middle.
  const auto above = positive.begin() + static_cast<ptrdiff_t>(positive.size() / 2);
  std::nth_element(positive.begin(), above, positive.end());
  if (positive.size() % 2 == 1) return *above;
  return *std::max_element(positive.begin(), above) * 0.5 + *above * 0.5;
}

std::vector<double> BatchVariances(const Moments& batch) {
  std::vector<double> variances;
  for (size_t c = 0; batch.count > 0 && c < batch.m2.size(); ++c) variances.push_back(batch.BiasedVariance(c));
  return variances;
}

void FlagSize(double variance, double median, ChannelFlags& flags) {
  if (variance > kHugeVariance) flags.Set(ChannelFlag::kExplodingAbsolute);
  if (variance / kHugeRatio > median) flags.Set(ChannelFlag::kExplodingRelative);
}

bool UsableVariance(double variance) { return std::isfinite(variance) && variance >= 0; }

}  // namespace

absl::string_view ChannelFlagName(ChannelFlag flag) { return kNames[static_cast<size_t>(flag)]; }

absl::Status CheckLayer(const LayerStatistics& layer, const Moments& batch, size_t num_features) {
  if (batch.count < 0) {
    return MakeError(absl::StatusCode::kInvalidArgument, ErrorReason::kInvalidField,
                     absl::StrCat("count is ", batch.count, ": send the number of values a channel"),
                     {{"field", "count"}});
  }
  if (!(layer.epsilon >= 0) || !std::isfinite(layer.epsilon)) {
    return MakeError(absl::StatusCode::kInvalidArgument, ErrorReason::kInvalidField,
                     absl::StrCat("epsilon is ", layer.epsilon, ": send a finite value, zero or more"),
                     {{"field", "epsilon"}});
  }
  struct Vector {
    absl::string_view name;
    size_t length;
    bool may_be_empty;
  };
  const bool tracked = !layer.running_mean.empty() || !layer.running_variance.empty();
  for (const auto& [name, length, may_be_empty] :
       {Vector{"running_mean", layer.running_mean.size(), !tracked},
        Vector{"running_variance", layer.running_variance.size(), !tracked},
        Vector{"initial_mean", layer.initial_mean.size(), true},
        Vector{"initial_variance", layer.initial_variance.size(), true}, Vector{"weight", layer.weight.size(), true},
        Vector{"bias", layer.bias.size(), true}, Vector{"moments.mean", batch.mean.size(), batch.count == 0},
        Vector{"moments.m2", batch.m2.size(), batch.count == 0}}) {
    if (length == num_features || (length == 0 && may_be_empty)) continue;
    return MakeError(absl::StatusCode::kInvalidArgument, ErrorReason::kShapeMismatch,
                     absl::StrCat(name, " has ", length, " values, the layer has ", num_features,
                                  " channels: send one value per channel"),
                     {{"field", std::string(name)}});
  }
  return absl::OkStatus();
}

std::vector<ChannelFlags> FlagChannels(const LayerStatistics& layer, const Moments& batch, size_t num_features) {
  const bool tracked = !layer.running_mean.empty();
  const std::vector<double> batch_variances = BatchVariances(batch);
  const double running_median = MedianAboveZero(layer.running_variance);
  const double batch_median = MedianAboveZero(batch_variances);
  const double dead = kDeadShare * layer.epsilon;
  std::vector<ChannelFlags> channels(num_features);
  for (size_t c = 0; c < num_features; ++c) {
    ChannelFlags& flags = channels[c];
    bool finite = (layer.weight.empty() || std::isfinite(layer.weight[c])) &&
                  (layer.bias.empty() || std::isfinite(layer.bias[c]));
    bool running_known = false, batch_known = false;
    if (tracked) {
      const double mean = layer.running_mean[c], variance = layer.running_variance[c];
      finite = finite && std::isfinite(mean) && UsableVariance(variance);
      const bool initial = mean == (layer.initial_mean.empty() ? 0 : layer.initial_mean[c]) &&
                           variance == (layer.initial_variance.empty() ? 1 : layer.initial_variance[c]);
      if (layer.num_batches_tracked == 0 && initial) {
        flags.Set(ChannelFlag::kNeverUpdated);
      } else {
        running_known = true;
        FlagSize(variance, running_median, flags);
      }
    }
    if (batch.count >= 1) finite = finite && std::isfinite(batch.mean[c]) && UsableVariance(batch.m2[c]);
    if (batch.count >= 2) {
      batch_known = true;
      FlagSize(batch_variances[c], batch_median, flags);
      if (batch.m2[c] == 0) flags.Set(ChannelFlag::kConstant);
    }
    if (!finite) flags.Set(ChannelFlag::kNonFinite);
    if (finite && (running_known || batch_known) && (!running_known || layer.running_variance[c] <= dead) &&
        (!batch_known || batch_variances[c] <= dead)) {
      flags.Set(ChannelFlag::kDead);
    }
    if (!layer.weight.empty() && layer.weight[c] == 0) flags.Set(ChannelFlag::kFrozenAffine);
    if (batch.count == 1) flags.Set(ChannelFlag::kBatchTooSmall);
    if (batch.count >= 2 && batch.count < kNoisyCount) flags.Set(ChannelFlag::kNoisyBatch);
  }
  return channels;
}

std::optional<Quantiles> QuantilesOf(absl::Span<const double> values) {
  std::vector<double> sorted;
  for (double value : values) {
    if (std::isfinite(value)) sorted.push_back(value);
  }
  if (sorted.empty()) return std::nullopt;
  std::sort(sorted.begin(), sorted.end());
  return Quantiles{sorted.front(), QuantileOfSorted(sorted, 0.05), QuantileOfSorted(sorted, 0.5),
                   QuantileOfSorted(sorted, 0.95), sorted.back()};
}

LayerSummary Summarize(const LayerStatistics& layer, const Moments& batch, absl::Span<const ChannelFlags> flags) {
  LayerSummary summary;
  summary.running_mean = QuantilesOf(layer.running_mean);
  summary.running_variance = QuantilesOf(layer.running_variance);
  if (batch.count > 0) {
    summary.batch_mean = QuantilesOf(batch.mean);
    summary.batch_variance = QuantilesOf(BatchVariances(batch));
  }
  for (const ChannelFlags& channel : flags) {
    for (size_t flag = 0; flag < kNumChannelFlags; ++flag) {
      summary.num_flagged[flag] += channel.Has(static_cast<ChannelFlag>(flag));
    }
  }
  return summary;
}

}  // namespace normserve
