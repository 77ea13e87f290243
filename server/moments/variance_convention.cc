#include "server/moments/variance_convention.h"

#include "absl/strings/str_cat.h"
#include "kernels/error_reason.h"

namespace normserve {
namespace {

// What float32, in which the variance may have been kept, can have taken from the initial share.
constexpr double kFloatRounding = 0x1p-22;

const char* NameOf(FoldedVariance variance) { return variance == FoldedVariance::kBiased ? "biased" : "unbiased"; }

}  // namespace

absl::StatusOr<std::vector<double>> ConvertRunningVariance(const std::string& layer, absl::Span<const double> variance,
                                                           FoldedVariance from, FoldedVariance to,
                                                           const VarianceHistory& history) {
  std::vector<double> converted(variance.begin(), variance.end());
  if (from == to || history.num_batches == 0) return converted;
  const auto refused = [&](const std::string& why) {
    return MakeError(absl::StatusCode::kFailedPrecondition, ErrorReason::kConventionMismatch,
                     absl::StrCat("running_var of \"", layer, "\" follows the ", NameOf(from),
                                  " variance and is to follow the ", NameOf(to), " one, but ", why),
                     {{"layer", layer}});
  };
  const int64_t n = history.values_per_channel;
  if (n < 2) {
    return refused(
        absl::StrCat("values_per_channel is ", n,
                     ": send the values per channel (N times the spatial size) of every batch, 2 or more, or "
                     "leave the conventions equal"));
  }
  const double momentum = history.average.momentum;
  if (history.average.kind != AverageKind::kCumulative && !(momentum >= 0 && momentum < 2)) {
    return refused(absl::StrCat("with momentum ", momentum, " nothing is known of how it came to be"));
  }
  const double initial = InitialShare(history.average, history.num_batches);
  const auto count = static_cast<double>(n);
  const double factor = to == FoldedVariance::kUnbiased ? count / (count - 1) : (count - 1) / count;
  for (size_t c = 0; c < converted.size(); ++c) {
    const double data = converted[c] - initial;
    if (data < -kFloatRounding * initial) {
      return refused(absl::StrCat("at channel ", c, " it is ", converted[c], ", less than the ", initial,
                                  " that an initial variance of 1 leaves after ", history.num_batches,
                                  " batches with momentum ", momentum,
                                  ": set the averaging and the count that it was kept with"));
    }
    if (data > 0) converted[c] = data * factor + initial;
  }
  return converted;
}

}  // namespace normserve
