#include "server/moments/variance_convention.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "kernels/error_reason.h"

namespace normserve {
namespace {

// Running variances of the same batches of n values, biased and unbiased, by simulation.
struct BothVariances {
  double biased = 1, unbiased = 1;
};
BothVariances Simulate(const RunningAverage& average, int64_t num_batches, int64_t n) {
  std::mt19937 random(3);
  std::gamma_distribution<double> sums(static_cast<double>(n), 1.0);
  BothVariances running;
  for (int64_t k = 1; k <= num_batches; ++k) {
    const double m2 = sums(random);
    const double q = 1 - average.momentum;
    const double weight = average.kind == AverageKind::kCumulative ? 1.0 / static_cast<double>(k)
                          : average.kind == AverageKind::kZeroDebiased
                              ? average.momentum / (1 - std::pow(q, static_cast<double>(k)))
                              : average.momentum;
    running.biased += weight * (m2 / static_cast<double>(n) - running.biased);
    running.unbiased += weight * (m2 / static_cast<double>(n - 1) - running.unbiased);
  }
  return running;
}

TEST(ConvertRunningVariance, IsWhatTheOtherConventionWouldHaveKept) {
  for (const AverageKind kind : {AverageKind::kExponential, AverageKind::kCumulative, AverageKind::kZeroDebiased}) {
    for (const int64_t num_batches : {0, 1, 5, 200}) {
      const VarianceHistory history{
          .average = {.kind = kind, .momentum = 0.05}, .num_batches = num_batches, .values_per_channel = 8};
      const BothVariances both = Simulate(history.average, num_batches, 8);
      const auto unbiased =
          ConvertRunningVariance("bn", {both.biased}, FoldedVariance::kBiased, FoldedVariance::kUnbiased, history);
      const auto biased =
          ConvertRunningVariance("bn", {both.unbiased}, FoldedVariance::kUnbiased, FoldedVariance::kBiased, history);
      ASSERT_TRUE(unbiased.ok() && biased.ok());
      EXPECT_NEAR((*unbiased)[0], both.unbiased, 1e-13);
      EXPECT_NEAR((*biased)[0], both.biased, 1e-13);
    }
  }
}

TEST(ConvertRunningVariance, RefusesWhatIsNotExact) {
  const auto fails = [](double variance, const VarianceHistory& history) {
    const auto converted =
        ConvertRunningVariance("bn", {variance}, FoldedVariance::kBiased, FoldedVariance::kUnbiased, history);
    EXPECT_FALSE(converted.ok());
    EXPECT_EQ(GetErrorDetails(converted.status())->reason, ErrorReason::kConventionMismatch);
    return std::string(converted.status().message());
  };
  EXPECT_THAT(fails(1, {.num_batches = 1}), testing::HasSubstr("values_per_channel is 0"));
  EXPECT_THAT(fails(1, {.num_batches = 1, .values_per_channel = 1}), testing::HasSubstr("values_per_channel is 1"));
  EXPECT_THAT(fails(1, {.average = {.momentum = 2.5}, .num_batches = 1, .values_per_channel = 8}),
              testing::HasSubstr("momentum 2.5"));
  // After one batch nine tenths of the initial 1 are left.
  EXPECT_THAT(fails(0.89, {.num_batches = 1, .values_per_channel = 8}),
              testing::HasSubstr("it is 0.89, less than the 0.9"));
}

TEST(ConvertRunningVariance, LeavesEqualConventionsAlone) {
  const auto converted =
      ConvertRunningVariance("bn", {0.1, 5}, FoldedVariance::kBiased, FoldedVariance::kBiased, {.num_batches = 1});
  ASSERT_TRUE(converted.ok());
  EXPECT_THAT(*converted, testing::ElementsAre(0.1, 5));
}

}  // namespace
}  // namespace normserve
