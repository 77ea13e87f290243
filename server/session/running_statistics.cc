#include "server/session/running_statistics.h"

#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/error_reason.h"

namespace normserve {

double BatchWeight(const SessionConfig& config, int64_t num_batches) {
  const auto count = static_cast<double>(num_batches);
  switch (config.averaging) {
    case Averaging::kCumulative:
      return 1 / count;
    case Averaging::kZeroDebiased:
      // 1 - (1 - m)^k without the cancellation of small m.
      return config.momentum == 1 ? 1 : config.momentum / -std::expm1(count * std::log1p(-config.momentum));
    case Averaging::kExponential:
      break;
  }
  return config.momentum;
}

absl::StatusOr<NormalizationStatistics> FoldBatch(const NormalizationStatistics& running, const Moments& batch,
                                                  const SessionConfig& config, int64_t num_batches) {
  const double weight = BatchWeight(config, num_batches);
  const bool biased = config.running_variance == RunningVariance::kBiased;
  const size_t num_features = running.mean.size();
  NORMSERVE_CHECK(batch.count >= 2 && batch.mean.size() == num_features && batch.m2.size() == num_features);
  NormalizationStatistics folded;
  folded.mean.resize(num_features);
  folded.variance.resize(num_features);
  for (size_t c = 0; c < num_features; ++c) {
    const double variance = biased ? batch.BiasedVariance(c) : batch.UnbiasedVariance(c);
    folded.mean[c] = (1 - weight) * running.mean[c] + weight * batch.mean[c];
    folded.variance[c] = (1 - weight) * running.variance[c] + weight * variance;
    // Where it ends, so does what evaluation can compute with.
    constexpr double kMost = std::numeric_limits<float>::max();
    if (!(std::abs(folded.mean[c]) <= kMost && std::abs(folded.variance[c]) <= kMost)) {
      return MakeError(absl::StatusCode::kInvalidArgument, ErrorReason::kNonFinite,
                       absl::StrCat("the running statistics of channel ", c, " would overflow with momentum ",
                                    config.momentum, ": use a momentum between 0 and 1"),
                       {{"field", "config.momentum"}, {"channel", absl::StrCat(c)}});
    }
  }
  return folded;
}

Moments MergeMoments(const Moments& left, const Moments& right) {
  if (left.count == 0) return right;
  if (right.count == 0) return left;
  Moments merged{.count = left.count + right.count};
  if (left.num_samples > 0 && right.num_samples > 0) merged.num_samples = left.num_samples + right.num_samples;
  const auto left_count = static_cast<double>(left.count), right_count = static_cast<double>(right.count);
  const double share = right_count / (left_count + right_count);
  for (size_t c = 0; c < left.mean.size(); ++c) {
    const double delta = right.mean[c] - left.mean[c];
    merged.mean.push_back(left.mean[c] + delta * share);
    merged.m2.push_back(left.m2[c] + right.m2[c] + delta * delta * left_count * share);
  }
  return merged;
}

}  // namespace normserve
