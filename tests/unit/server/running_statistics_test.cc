#include "server/session/running_statistics.h"

#include <gtest/gtest.h>

#include "tests/unit/server/status_matchers.h"

namespace normserve {
namespace {

TEST(FoldBatch, UsesMomentumAsTheNewBatchsWeightAndTheUnbiasedVariance) {
  const NormalizationStatistics running{.mean = {0, 10}, .variance = {1, 4}};
  const Moments batch{.count = 5, .mean = {2, -1}, .m2 = {8, 40}};
  const auto folded = FoldBatch(running, batch, {.momentum = 0.1}, 7);
  ASSERT_TRUE(folded.ok());
  // m2 / 4, not m2 / 5. The exact formula, in double: bit for bit.
  EXPECT_EQ(folded->mean[0], (1 - 0.1) * 0 + 0.1 * 2);
  EXPECT_EQ(folded->mean[1], (1 - 0.1) * 10 + 0.1 * -1);
  EXPECT_EQ(folded->variance[0], (1 - 0.1) * 1 + 0.1 * (8.0 / 4));
  EXPECT_EQ(folded->variance[1], (1 - 0.1) * 4 + 0.1 * (40.0 / 4));
}

TEST(FoldBatch, MomentumOneForgetsAndZeroIgnores) {
  const NormalizationStatistics running{.mean = {3}, .variance = {7}};
  const Moments batch{.count = 2, .mean = {5}, .m2 = {11}};
  EXPECT_EQ(FoldBatch(running, batch, {.momentum = 1}, 1)->mean[0], 5);
  EXPECT_EQ(FoldBatch(running, batch, {.momentum = 1}, 1)->variance[0], 11);
  EXPECT_EQ(FoldBatch(running, batch, {.momentum = 0}, 1)->mean[0], 3);
  EXPECT_EQ(FoldBatch(running, batch, {.momentum = 0}, 1)->variance[0], 7);
}

TEST(FoldBatch, AHugeMomentumThatWouldOverflowIsRefused) {
  const NormalizationStatistics running{.mean = {0}, .variance = {1}};
  const Moments batch{.count = 2, .mean = {1e30}, .m2 = {1}};
  // Beyond double, and beyond the float32 that evaluation computes in.
  for (const double momentum : {1e300, 1e10}) {
    EXPECT_THAT(FoldBatch(running, batch, {.momentum = momentum}, 1).status(),
                Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kNonFinite));
  }
}

TEST(FoldBatch, BiasedFollowsTheVarianceThatNormalises) {
  const NormalizationStatistics running{.mean = {0}, .variance = {1}};
  const Moments batch{.count = 5, .mean = {2}, .m2 = {8}};
  const auto folded = FoldBatch(running, batch, {.running_variance = RunningVariance::kBiased}, 1);
  EXPECT_EQ(folded->variance[0], (1 - 0.1) * 1 + 0.1 * (8.0 / 5));
}

TEST(BatchWeight, CumulativeCountsEveryBatchTheSame) {
  const SessionConfig config{.averaging = Averaging::kCumulative};
  EXPECT_EQ(BatchWeight(config, 1), 1);
  EXPECT_EQ(BatchWeight(config, 4), 0.25);
  NormalizationStatistics running{.mean = {100}, .variance = {100}};
  for (int64_t k = 1; k <= 4; ++k) {
    running = *FoldBatch(running, {.count = 2, .mean = {static_cast<double>(k)}, .m2 = {2.0 * k}}, config, k);
  }
  EXPECT_DOUBLE_EQ(running.mean[0], 2.5);  // (1 + 2 + 3 + 4) / 4: nothing is left of what it started from
  EXPECT_DOUBLE_EQ(running.variance[0], 5);
}

// The definition: an exponential average that starts at 0, divided by 1 - (1 - momentum)^k.
TEST(BatchWeight, ZeroDebiasedIsTheExponentialAverageWithoutItsStart) {
  for (double momentum : {1e-12, 0.01, 0.3, 0.999, 1.0}) {
    const SessionConfig config{.averaging = Averaging::kZeroDebiased, .momentum = momentum};
    NormalizationStatistics running{.mean = {100}, .variance = {100}};
    long double from_zero = 0, rest = 1;
    for (int64_t k = 1; k <= 50; ++k) {
      const double value = static_cast<double>(k * k % 17);
      running = *FoldBatch(running, {.count = 2, .mean = {value}, .m2 = {1}}, config, k);
      from_zero = (1 - static_cast<long double>(momentum)) * from_zero + momentum * value;
      rest *= 1 - static_cast<long double>(momentum);
      // long double itself loses the digits of 1 - rest for a tiny momentum.
      const double expected = static_cast<double>(from_zero / (1 - rest));
      EXPECT_NEAR(running.mean[0], expected, expected * (momentum < 1e-6 ? 1e-6 : 1e-13)) << momentum << " " << k;
    }
    EXPECT_NEAR(running.variance[0], 1, 1e-12);
  }
}

TEST(MergeMoments, IsTheMomentsOfAllValues) {
  const Moments left{.count = 2, .mean = {1.5}, .m2 = {0.5}};  // 1, 2
  const Moments right{.count = 3, .mean = {7}, .m2 = {8}};     // 5, 7, 9
  const Moments merged = MergeMoments(left, right);
  EXPECT_EQ(merged.count, 5);
  EXPECT_DOUBLE_EQ(merged.mean[0], 4.8);
  EXPECT_DOUBLE_EQ(merged.m2[0], 44.8);
  EXPECT_EQ(MergeMoments({}, right).mean, right.mean);
  EXPECT_EQ(MergeMoments(left, {}).m2, left.m2);
}

}  // namespace
}  // namespace normserve
