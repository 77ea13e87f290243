#include "server/moments/comparison.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numbers>

#include "absl/strings/str_cat.h"
#include "kernels/error_reason.h"

namespace normserve {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// x - ln(1 + x) for x > -1, without the cancellation of small x: there the sum of (-x)^k / k from k = 2.
double MinusLog1p(double x) {
  if (std::abs(x) > 0.01) return x - std::log1p(x);
  double sum = 0, power = x * x;
  for (int k = 2; k <= 9; ++k, power *= -x) sum += power / k;
  return sum;
}

// (batch mean - reference mean) / `unit`; 0 / 0 is 0.
double Scaled(double difference, double unit) { return difference == 0 ? 0 : difference / unit; }

// The share of a standard normal that is at least as far from 0 as `z`.
double TwoSided(double z) { return std::erfc(std::abs(z) / std::numbers::sqrt2); }

double KlDivergence(double variance, double reference, double difference) {
  if (variance == 0 || reference == 0) return variance == reference && difference == 0 ? 0 : kInfinity;
  const double ratio_less_one = (variance - reference) / reference;
  const double offset = Scaled(difference, std::sqrt(reference));
  if (!std::isfinite(ratio_less_one) || !std::isfinite(offset)) return kInfinity;
  // A ratio that rounds to 0 has a logarithm all the same.
  const double of_variance =
      ratio_less_one > -0.99 ? MinusLog1p(ratio_less_one) : ratio_less_one - (std::log(variance) - std::log(reference));
  return 0.5 * (of_variance + offset * offset);
}

ChannelComparison Compare(int64_t count, double mean, double m2, double reference_mean, double reference_variance) {
  ChannelComparison compared;
  const bool sound = std::isfinite(mean) && std::isfinite(reference_mean) && std::isfinite(reference_variance) &&
                     reference_variance >= 0;
  if (count < 1 || !sound) return compared;
  const auto n = static_cast<double>(count);
  const double difference = mean - reference_mean;
  compared.mean_z = Scaled(difference, std::sqrt(reference_variance) / std::sqrt(n));
  compared.mean_p = TwoSided(*compared.mean_z);
  if (count < 2 || !std::isfinite(m2) || m2 < 0) return compared;

  const double variance = m2 / n, unbiased = m2 / (n - 1);
  compared.kl_divergence = KlDivergence(variance, reference_variance, difference);
  compared.wasserstein = std::hypot(difference, std::sqrt(variance) - std::sqrt(reference_variance));
  compared.variance_ratio = unbiased == reference_variance ? 1 : unbiased / reference_variance;
  const double spread = 2 / (9 * (n - 1));
  compared.variance_z = (std::cbrt(*compared.variance_ratio) - (1 - spread)) / std::sqrt(spread);
  compared.variance_p = TwoSided(*compared.variance_z);
  return compared;
}

}  // namespace

absl::StatusOr<std::vector<ChannelComparison>> CompareChannels(const Moments& batch,
                                                               const NormalizationStatistics& reference) {
  const size_t num_features = reference.mean.size();
  if (batch.count < 0) {
    return MakeError(absl::StatusCode::kInvalidArgument, ErrorReason::kInvalidField,
                     absl::StrCat("the batch's count is ", batch.count, ": send the number of values a channel"),
                     {{"field", "count"}});
  }
  const bool no_batch = batch.count == 0 && batch.mean.empty() && batch.m2.empty();
  if (reference.variance.size() != num_features ||
      (!no_batch && (batch.mean.size() != num_features || batch.m2.size() != num_features))) {
    return MakeError(absl::StatusCode::kInvalidArgument, ErrorReason::kShapeMismatch,
                     absl::StrCat("the batch has ", batch.mean.size(), " means and ", batch.m2.size(),
                                  " m2, the reference ", num_features, " means and ", reference.variance.size(),
                                  " variances: send one of each per channel"),
                     {{"field", "moments"}});
  }
  std::vector<ChannelComparison> channels(num_features);
  if (batch.count == 0) return channels;
  for (size_t c = 0; c < num_features; ++c) {
    channels[c] = Compare(batch.count, batch.mean[c], batch.m2[c], reference.mean[c], reference.variance[c]);
  }
  return channels;
}

std::optional<double> Drift(absl::Span<const ChannelComparison> channels, const NormalizationStatistics& reference,
                            double epsilon) {
  double largest = 0;
  std::vector<double> shares;
  for (size_t c = 0; c < channels.size(); ++c) {
    if (!channels[c].wasserstein.has_value()) continue;
    const double share = Scaled(*channels[c].wasserstein, std::sqrt(reference.variance[c] + epsilon));
    if (!std::isfinite(share)) continue;
    shares.push_back(share);
    largest = std::max(largest, share);
  }
  if (shares.empty()) return std::nullopt;
  if (largest == 0) return 0;
  double sum = 0;  // of the largest: squares of shares may overflow
  for (double share : shares) sum += share / largest * (share / largest);
  return largest * std::sqrt(sum / static_cast<double>(shares.size()));
}

}  // namespace normserve
