#include "server/checkpoint/folding.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "kernels/error_reason.h"

namespace normserve {
namespace {

// The largest distance of float32's x * scale + shift from the layer, for x drawn where the bound holds.
double LargestError(const FoldedLayer& folded, const AffineParameters& parameters,
                    const NormalizationStatistics& statistics, double epsilon) {
  std::mt19937 random(1);
  std::uniform_real_distribution<double> deviations(-kFoldedDeviations, kFoldedDeviations);
  double largest = 0;
  for (size_t c = 0; c < statistics.mean.size(); ++c) {
    const long double deviation = std::sqrt(static_cast<long double>(statistics.variance[c]) + epsilon);
    for (int i = 0; i < 2000; ++i) {
      // Towards the mean, so that x stays within the bound when it is rounded.
      const auto x =
          static_cast<float>(statistics.mean[c] + 0.999 * deviations(random) * static_cast<double>(deviation));
      const float product = x * folded.scale[c];
      const float y = product + folded.shift[c];
      const long double exact =
          parameters.weight[c] * (static_cast<long double>(x) - statistics.mean[c]) / deviation + parameters.bias[c];
      largest = std::max(largest, static_cast<double>(std::abs(y - exact)));
    }
  }
  return largest;
}

TEST(FoldLayer, NoOutputIsFurtherThanTheBoundAndSomeAreNear) {
  // One layer for each size of |mean| beside the deviation.
  for (const double mean : {0.0, 1.0, 1e3, 1e6}) {
    const AffineParameters parameters{.weight = {1.7f, -0.3f}, .bias = {0.1f, 40.0f}};
    const NormalizationStatistics statistics{.mean = {mean * 1.1, -mean * 0.7}, .variance = {1.3, 0.02}};
    const auto folded = FoldLayer("bn", parameters, statistics, 1e-5);
    ASSERT_TRUE(folded.ok()) << folded.status();
    const double error = LargestError(*folded, parameters, statistics, 1e-5);
    EXPECT_LE(error, folded->output_error_bound) << mean;
    EXPECT_GT(error, folded->output_error_bound / 10) << mean;
  }
}

TEST(FoldLayer, RefusesAScaleThatIsNotFinite) {
  const auto folded = FoldLayer("net/bn", {.weight = {1, 1}, .bias = {0, 0}}, {.mean = {0, 0}, .variance = {1, 0}}, 0);
  ASSERT_FALSE(folded.ok());
  EXPECT_EQ(folded.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(GetErrorDetails(folded.status())->reason, ErrorReason::kNonFinite);
  EXPECT_THAT(std::string(folded.status().message()), testing::HasSubstr("\"net/bn\" has scale inf"));
}

}  // namespace
}  // namespace normserve
