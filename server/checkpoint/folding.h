// A layer in evaluation as one multiplication and one addition a value.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/batch_norm.h"

namespace normserve {

struct FoldedLayer {
  std::vector<float> scale;  // [C], weight / sqrt(variance + epsilon)
  std::vector<float> shift;  // [C], bias - mean * scale
  // For x within kFoldedDeviations * sqrt(variance + epsilon) of the mean, float32's x * scale + shift (rounded after
  // the product and after the sum) is no further than this from weight * (x - mean) / sqrt(variance + epsilon) + bias
  // in exact arithmetic, in any channel. Absolute. Where |mean| is large beside the deviation it is large too: there x
  // * scale and shift cancel, and a layer that subtracts the mean first is better.
  double output_error_bound = 0;
};

constexpr double kFoldedDeviations = 10;

// FAILED_PRECONDITION (NON_FINITE), naming `session` and the channel: scale or shift is not finite in float32, as where
// variance + epsilon is 0.
absl::StatusOr<FoldedLayer> FoldLayer(const std::string& session, const AffineParameters& parameters,
                                      const NormalizationStatistics& statistics, double epsilon);

}  // namespace normserve
