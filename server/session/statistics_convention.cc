#include "server/session/statistics_convention.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/error_reason.h"
#include "server/moments/variance_convention.h"

namespace normserve {
namespace {

FoldedVariance FoldedBy(RunningVariance variance) {
  return variance == RunningVariance::kBiased ? FoldedVariance::kBiased : FoldedVariance::kUnbiased;
}

absl::Status Mismatch(const std::string& name, absl::string_view message) {
  return MakeError(absl::StatusCode::kFailedPrecondition, ErrorReason::kConventionMismatch,
                   absl::StrCat("session \"", name, "\" ", message), {{"session", name}});
}

}  // namespace

RunningAverage AverageOf(const SessionConfig& config) {
  const AverageKind kind = config.averaging == Averaging::kCumulative     ? AverageKind::kCumulative
                           : config.averaging == Averaging::kZeroDebiased ? AverageKind::kZeroDebiased
                                                                          : AverageKind::kExponential;
  return {.kind = kind, .momentum = config.momentum};
}

absl::StatusOr<NormalizationStatistics> ConvertStatistics(const std::string& name, NormalizationStatistics statistics,
                                                          const SessionConfig& config,
                                                          const VarianceConversion& conversion) {
  if (conversion.from == conversion.to) return statistics;
  if (!conversion.num_batches_tracked.has_value()) {
    return Mismatch(
        name,
        "would get a running_var that another convention kept, and without num_batches_tracked it cannot be "
        "converted exactly: leave the convention out, or give the session that convention");
  }
  auto variance = ConvertRunningVariance(name, statistics.variance, FoldedBy(conversion.from), FoldedBy(conversion.to),
                                         {.average = AverageOf(config),
                                          .num_batches = *conversion.num_batches_tracked,
                                          .values_per_channel = conversion.values_per_channel});
  if (!variance.ok()) return variance.status();
  statistics.variance = *std::move(variance);
  return statistics;
}

absl::Status CheckAveraging(const std::string& name, const SessionConfig& config, Convention convention) {
  const bool has_cumulative = convention == Convention::kPyTorch;
  if (config.averaging == Averaging::kExponential) return absl::OkStatus();
  if (config.averaging == Averaging::kCumulative && has_cumulative) return absl::OkStatus();
  return Mismatch(name,
                  absl::StrCat("keeps a ", config.averaging == Averaging::kCumulative ? "cumulative" : "zero-debiased",
                               " average, which the layers of this convention do not have: leave convention out to "
                               "write the statistics as they are"));
}

std::optional<double> MomentumIn(Convention convention, const SessionConfig& config) {
  if (config.averaging != Averaging::kExponential) return std::nullopt;
  return convention == Convention::kPyTorch ? config.momentum : 1 - config.momentum;
}

}  // namespace normserve
