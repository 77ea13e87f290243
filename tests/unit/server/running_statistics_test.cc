#include "server/session/running_statistics.h"

#include <gtest/gtest.h>

#include "tests/unit/server/status_matchers.h"

namespace normserve {
namespace {

TEST(FoldBatch, UsesMomentumAsTheNewBatchsWeightAndTheUnbiasedVariance) {
  const NormalizationStatistics running{.mean = {0, 10}, .variance = {1, 4}};
  const Moments batch{.count = 5, .mean = {2, -1}, .m2 = {8, 40}};
  const auto folded = FoldBatch(running, batch, 0.1);
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
  EXPECT_EQ(FoldBatch(running, batch, 1)->mean[0], 5);
  EXPECT_EQ(FoldBatch(running, batch, 1)->variance[0], 11);
  EXPECT_EQ(FoldBatch(running, batch, 0)->mean[0], 3);
  EXPECT_EQ(FoldBatch(running, batch, 0)->variance[0], 7);
}

TEST(FoldBatch, AHugeMomentumThatWouldOverflowIsRefused) {
  const NormalizationStatistics running{.mean = {0}, .variance = {1}};
  const Moments batch{.count = 2, .mean = {1e30}, .m2 = {1}};
  EXPECT_THAT(FoldBatch(running, batch, 1e300).status(),
              Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kNonFinite));
}

}  // namespace
}  // namespace normserve
