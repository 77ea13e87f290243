#include "server/checkpoint/folding.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "kernels/error_reason.h"

namespace normserve {
namespace {

constexpr double kFloatUnit = 0x1p-24;  // half a unit in the last place of 1, the most that rounding adds
constexpr double kSmallestNormal = 0x1p-126;
constexpr double kDoubleUnit = 0x1p-52;  // the same of the doubles that scale and shift are made in, and to spare

// What float32's x * scale + shift may be off by for |x| <= x_limit, where scale and shift are off by those amounts.
double OutputErrorBound(double x_limit, double scale, double scale_error, double shift, double shift_error) {
  const double product = x_limit * std::abs(scale);
  const double product_rounding = kFloatUnit * product + kSmallestNormal * kFloatUnit;
  const double sum = product + product_rounding + std::abs(shift);
  const double sum_rounding = kFloatUnit * sum + kSmallestNormal * kFloatUnit;
  return x_limit * scale_error + shift_error + product_rounding + sum_rounding;
}

}  // namespace

absl::StatusOr<FoldedLayer> FoldLayer(const std::string& session, const AffineParameters& parameters,
                                      const NormalizationStatistics& statistics, double epsilon) {
  const size_t num_features = statistics.mean.size();
  FoldedLayer folded{.scale = std::vector<float>(num_features), .shift = std::vector<float>(num_features)};
  for (size_t c = 0; c < num_features; ++c) {
    const double deviation = std::sqrt(statistics.variance[c] + epsilon);
    const double mean = statistics.mean[c], bias = static_cast<double>(parameters.bias[c]);
    const double scale = static_cast<double>(parameters.weight[c]) / deviation;
    const double shift = bias - mean * scale;
    folded.scale[c] = static_cast<float>(scale);
    folded.shift[c] = static_cast<float>(shift);
    if (!std::isfinite(folded.scale[c]) || !std::isfinite(folded.shift[c])) {
      return MakeError(absl::StatusCode::kFailedPrecondition, ErrorReason::kNonFinite,
                       absl::StrCat("session \"", session, "\" has scale ", scale, " and shift ", shift, " at channel ",
                                    c, " (variance ", statistics.variance[c], ", epsilon ", epsilon,
                                    "), which float32 does not hold: export it without folded"),
                       {{"field", "folded"}, {"session", session}});
    }
    const double rounded_scale = static_cast<double>(folded.scale[c]);
    const double rounded_shift = static_cast<double>(folded.shift[c]);
    const double scale_error = std::abs(rounded_scale - scale) + 2 * kDoubleUnit * std::abs(scale);
    const double shift_error =
        std::abs(rounded_shift - shift) + 4 * kDoubleUnit * (std::abs(bias) + std::abs(mean * scale));
    folded.output_error_bound =
        std::max(folded.output_error_bound, OutputErrorBound(std::abs(mean) + kFoldedDeviations * deviation,
                                                             rounded_scale, scale_error, rounded_shift, shift_error));
  }
  return folded;
}

}  // namespace normserve
