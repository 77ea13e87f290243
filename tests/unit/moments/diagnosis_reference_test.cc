// Lag or shift, told by what was observed before: a reference, mostly the moments of many batches pooled. And batches
// of other sizes than the newest, as what was observed makes them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "server/moments/diagnosis.h"
#include "tests/unit/moments/trained_layer.h"
#include "tests/unit/server/status_matchers.h"

namespace normserve {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr size_t kChannels = 64;

// Of variance 1 in every channel.
Moments DataOf(int64_t count, double mean) {
  return {.count = count,
          .mean = std::vector<double>(kChannels, mean),
          .m2 = std::vector<double>(kChannels, static_cast<double>(count))};
}

// Statistics of mean 0 and variance 1 that were pushed, not the initial ones: nothing was folded in here.
DiagnosedLayer Pushed() {
  static const std::vector<double> mean(kChannels, 0), variance(kChannels, 1), initial_mean(kChannels, -1);
  return {.num_features = kChannels,
          .statistics = {.running_mean = mean,
                         .running_variance = variance,
                         .initial_mean = initial_mean,
                         .num_batches_tracked = 1000},
          .batches_since_set = 0};
}

LayerDiagnosis Diagnose(const Moments& batch, const Moments& reference, absl::Span<const Moments> history = {}) {
  return *DiagnoseLayer(Pushed(), batch, history, &reference);
}

TEST(Reference, LikeTheRunningStatisticsSaysShift) {
  const LayerDiagnosis diagnosis = Diagnose(DataOf(100000, 2), DataOf(50000, 0.1));
  EXPECT_EQ(diagnosis.verdict, Verdict::kTrainEvalGap);
  EXPECT_EQ(diagnosis.main_cause, Cause::kDataShift);
  EXPECT_EQ(diagnosis.reference_count, 50000);
  EXPECT_THAT(
      diagnosis.explanation,
      HasSubstr("The running statistics fit what was observed before the last reset, 50000 values a channel, and "
                "not what is observed now"));
  EXPECT_THAT(diagnosis.explanation, Not(HasSubstr("earlier batch")));
  EXPECT_THAT(diagnosis.advice, HasSubstr("calibrate on the new"));
}

TEST(Reference, LikeTheNewestSaysLag) {
  const LayerDiagnosis diagnosis = Diagnose(DataOf(100000, 2), DataOf(50000, 2.01));
  EXPECT_EQ(diagnosis.main_cause, Cause::kMomentumLag);
  EXPECT_THAT(diagnosis.explanation,
              AllOf(HasSubstr("before the last reset, 50000 values a channel, agrees with what is observed now"),
                    HasSubstr("set, not averaged"), Not(HasSubstr("earlier batch"))));
}

TEST(Reference, LikeNeitherLeavesItOpen) {
  const LayerDiagnosis diagnosis = Diagnose(DataOf(100000, 2), DataOf(50000, -3));
  EXPECT_EQ(diagnosis.main_cause, Cause::kLagOrShift);
  EXPECT_EQ(diagnosis.reference_count, 0);
  EXPECT_EQ(DiagnoseLayer(Pushed(), DataOf(100000, 2))->main_cause, Cause::kLagOrShift);
}

TEST(Reference, OfAnotherLengthIsRefusedAndOneThatIsNotFiniteLeftOut) {
  const Moments narrow{.count = 9, .mean = {0}, .m2 = {9}};
  EXPECT_THAT(DiagnoseLayer(Pushed(), DataOf(100, 2), absl::Span<const Moments>(), &narrow).status(),
              Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kShapeMismatch));
  Moments lost = DataOf(100, 0);
  lost.mean[7] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(Diagnose(DataOf(100, 2), lost).main_cause, Cause::kLagOrShift);
  EXPECT_EQ(Diagnose(DataOf(100, 2), DataOf(1, 0)).main_cause, Cause::kLagOrShift);
}

// What may be chance depends on how many values both are of: a large reference lets little pass for the same data as
// the newest, a small one much.
TEST(Reference, ItsNoiseIsThatOfItsCount) {
  const auto limit = [](double num_batches) { return PredictNoise(DataOf(64, 0), {}, 1e-5, 64, num_batches).limit; };
  const double apart = (limit(1000) + limit(2)) / 2;  // within the noise of two batches of 64
  EXPECT_EQ(Diagnose(DataOf(64, 2), DataOf(64000, 2 - apart)).main_cause, Cause::kLagOrShift);
  EXPECT_EQ(Diagnose(DataOf(64, 2), DataOf(128, 2 - apart)).main_cause, Cause::kMomentumLag);
  EXPECT_EQ(Diagnose(DataOf(64, 2), DataOf(16, 2 - 0.99 * limit(0.25))).main_cause, Cause::kMomentumLag);
  EXPECT_EQ(Diagnose(DataOf(64, 2), DataOf(16, 2 - 1.05 * limit(0.25))).main_cause, Cause::kLagOrShift);
  // A gap that is no noise but small against the reference's distance from both.
  EXPECT_EQ(Diagnose(DataOf(64, 1.01 * limit(1e9)), DataOf(64000, 0)).main_cause, Cause::kDataShift);
}

TEST(Reference, RecentBatchesAreAskedFirstWhereTheyCanTell) {
  const Moments newest = DataOf(6400, 2), like_running = DataOf(6400, 0), like_newest = DataOf(6400, 2);
  const std::vector<Moments> running_batches(8, DataOf(640, 0)), newest_batches(8, DataOf(640, 2)),
      other_batches(8, DataOf(640, -3)), one_batch(1, DataOf(640, 2));
  EXPECT_EQ(Diagnose(newest, like_newest, running_batches).main_cause, Cause::kDataShift);
  EXPECT_THAT(Diagnose(newest, like_newest, running_batches).explanation, HasSubstr("those of the 8 earlier batches"));
  EXPECT_EQ(Diagnose(newest, like_running, newest_batches).main_cause, Cause::kMomentumLag);
  // They are like neither, or too few.
  EXPECT_EQ(Diagnose(newest, like_running, other_batches).main_cause, Cause::kDataShift);
  EXPECT_EQ(Diagnose(newest, like_newest, other_batches).main_cause, Cause::kMomentumLag);
  EXPECT_EQ(Diagnose(newest, like_running, one_batch).main_cause, Cause::kDataShift);
  // The reference is no better: the batches' word stands.
  EXPECT_EQ(Diagnose(newest, DataOf(6400, -3), running_batches).main_cause, Cause::kDataShift);
}

// Two batches of eight values are as near the newest as their noise allows, and as near the running statistics: they
// tell nothing, where a large reference does.
TEST(Reference, RecentBatchesWhoseNoiseHidesTheGapAreNotAsked) {
  const std::vector<Moments> few(2, DataOf(8, 0.2));
  const Moments newest = DataOf(6400, 0.3);
  EXPECT_EQ(DiagnoseLayer(Pushed(), newest, few)->main_cause, Cause::kMomentumLag);
  EXPECT_EQ(Diagnose(newest, DataOf(6400, 0), few).main_cause, Cause::kDataShift);
  EXPECT_EQ(Diagnose(newest, DataOf(6400, 0.3), few).main_cause, Cause::kMomentumLag);
}

// Sixteen values a batch; what was observed is a hundred such batches.
class PooledBatches : public testing::Test {
 protected:
  PooledBatches() : layer_(kChannels) {
    for (int i = 0; i < 300; ++i) layer_.Train(draw_.Batch(16, kChannels, 1, 2));
  }

  LayerDiagnosis Diagnose(double mean) {
    return layer_.Diagnose(draw_.Batch(1600, kChannels, mean, 2), absl::MakeConstSpan(layer_.seen).last(8));
  }

  Draw draw_{33};
  TrainedLayer layer_;
};

TEST_F(PooledBatches, AreAsManyIndependentValuesAsTheyHave) {
  const LayerDiagnosis diagnosis = Diagnose(1);
  EXPECT_EQ(diagnosis.verdict, Verdict::kHealthy);
  EXPECT_GT(diagnosis.independent_values, 800);  // a hundred, were their distance from the small ones theirs alone
}

TEST_F(PooledBatches, TheRunningStatisticsKeepTheNoiseOfTheSmallOnes) {
  for (int trial = 0; trial < 20; ++trial) {
    const LayerDiagnosis diagnosis = Diagnose(1);
    EXPECT_GT(diagnosis.gap->rms, 0.05);  // else it is healthy anyway
    EXPECT_EQ(diagnosis.verdict, Verdict::kHealthy) << trial;
  }
}

TEST_F(PooledBatches, AShiftThatOneOfThemWouldHideIsSeen) {
  EXPECT_EQ(Diagnose(1.22).verdict, Verdict::kTrainEvalGap);
  const LayerDiagnosis diagnosis = Diagnose(2);
  EXPECT_EQ(diagnosis.main_cause, Cause::kDataShift);
  EXPECT_FALSE(diagnosis.history_is_mixed);  // small batches differ by as much
}

}  // namespace
}  // namespace normserve
