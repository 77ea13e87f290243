// Layers as people reported them, rebuilt: each must get the verdict and cause that the thread arrived at. And layers
// that are sound, which must raise no alarm.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "server/moments/diagnosis.h"
#include "tests/unit/moments/trained_layer.h"

namespace normserve {
namespace {

using ::testing::HasSubstr;

double ShareOf(const LayerDiagnosis& diagnosis, Cause cause) {
  for (const CauseShare& share : diagnosis.causes) {
    if (share.cause == cause) return share.share / diagnosis.gap->rms;
  }
  return 0;
}

absl::Span<const Moments> Last(const TrainedLayer& layer, size_t count) {
  return absl::MakeConstSpan(layer.seen).last(count);
}

// PyTorch forum 133025, 'Inconsistent Batchnorm behavior in eval and training modes': [4, 3, 32, 32] from U(0, 1), one
// update. The running statistics of both copies are equal, the sums about 0 and 5,795.
TEST(ReportedLayer, TwoCopiesThatSumToZeroAndFiveThousand) {
  Draw draw(133025);
  TrainedLayer layer(3);
  ValueBatch image(3, std::vector<double>(4 * 32 * 32));
  for (auto& channel : image) {
    for (double& value : channel) value = draw.Uniform();
  }
  layer.Train(image);
  EXPECT_NEAR(layer.mean[0], 0.05, 0.001);
  EXPECT_NEAR(layer.variance[0], 0.908, 0.001);
  const LayerDiagnosis diagnosis = layer.Diagnose(image);
  EXPECT_EQ(diagnosis.verdict, Verdict::kTrainEvalGap);
  EXPECT_EQ(diagnosis.main_cause, Cause::kInitialisation);
  EXPECT_GT(ShareOf(diagnosis, Cause::kInitialisation), 0.99);
  double sum = 0;
  for (const ChannelGap& channel : diagnosis.gap->channels) sum += channel.offset * 4 * 32 * 32;
  EXPECT_NEAR(sum, 5795, 60);
  EXPECT_THAT(diagnosis.explanation, HasSubstr("90 % of the running statistics"));
  // Four samples say little of a variance, but what is left of the start is known without them.
  DiagnosedLayer of_four = layer.Diagnosed();
  of_four.samples_per_batch = 4;
  EXPECT_EQ(DiagnoseLayer(of_four, MomentsOf(image))->verdict, Verdict::kTrainEvalGap);
}

// PyTorch issue 19916 (and 19902): momentum 1, three values a channel; running_var 1.3333 where training used 0.8889.
TEST(ReportedLayer, RunningVarianceIsNotTheOneTrainingUsed) {
  TrainedLayer layer(1);
  layer.average.momentum = 1;
  const ValueBatch batch = {{1, 3, 3}};
  layer.Train(batch);
  EXPECT_DOUBLE_EQ(layer.variance[0], 4.0 / 3);
  const LayerDiagnosis diagnosis = layer.Diagnose(batch);
  EXPECT_EQ(diagnosis.verdict, Verdict::kBatchTooSmall);
  EXPECT_EQ(diagnosis.main_cause, Cause::kBessel);
  EXPECT_NEAR(ShareOf(diagnosis, Cause::kBessel), 1, 1e-9);
  EXPECT_NEAR(diagnosis.gap->scale_ratio, std::sqrt(2.0 / 3), 1e-5);
}

// PyTorch forum, 'Batch Normalization Differences between .eval and .train Modes' (2023): [2, 1, 2, 2] of 1 to 4 and 10
// to 40, momentum 1, eps 0; all agree but for sqrt(7/8).
TEST(ReportedLayer, EightValuesDifferBySqrtSevenEighths) {
  TrainedLayer layer(1);
  layer.average.momentum = 1;
  layer.epsilon = 0;
  const ValueBatch batch = {{1, 2, 3, 4, 10, 20, 30, 40}};
  layer.Train(batch);
  EXPECT_EQ(layer.mean[0], 13.75);
  const LayerDiagnosis diagnosis = layer.Diagnose(batch);
  EXPECT_DOUBLE_EQ(diagnosis.gap->scale_ratio, std::sqrt(7.0 / 8));
  EXPECT_EQ(diagnosis.main_cause, Cause::kBessel);
  EXPECT_EQ(diagnosis.verdict, Verdict::kBatchTooSmall);
}

// PyTorch issue 5406: eval on a new layer, then train, on the same batch: 'the norm of the difference is 33'.
TEST(ReportedLayer, EvaluatedBeforeAnyTraining) {
  Draw draw(5406);
  const LayerDiagnosis diagnosis = TrainedLayer(3).Diagnose(draw.Batch(32 * 19 * 19, 3, 0.1, 0.6));
  EXPECT_EQ(diagnosis.verdict, Verdict::kNeverUpdated);
  EXPECT_EQ(diagnosis.main_cause, Cause::kInitialisation);
  EXPECT_TRUE(diagnosis.flags[2].Has(ChannelFlag::kNeverUpdated));
}

// PyTorch issue 15298, Lightning issue 14866: momentum 0, by one who took it for the weight of the old statistics, by
// the other in place of None (the plain average): nothing is ever learnt.
TEST(ReportedLayer, MomentumZeroWasMeantOtherwise) {
  Draw draw(15298);
  TrainedLayer layer(4);
  layer.average.momentum = 0;
  for (int i = 0; i < 500; ++i) layer.Train(draw.Batch(64, 4, 1, 2));
  const LayerDiagnosis diagnosis = layer.Diagnose(draw.Batch(64, 4, 1, 2));
  EXPECT_EQ(diagnosis.verdict, Verdict::kNeverUpdated);
  EXPECT_THAT(diagnosis.explanation, HasSubstr("500 batches have been counted"));
  EXPECT_THAT(diagnosis.advice, HasSubstr("Momentum 0 ignores every batch"));
}

// A model moved from Keras with its momentum of 0.99, which is 0.01 here: the statistics are those of the last batch.
TEST(ReportedLayer, KerasMomentumTakenOverAsItStands) {
  Draw draw(99);
  TrainedLayer layer(64);
  layer.average.momentum = 0.99;
  for (int i = 0; i < 100; ++i) layer.Train(draw.Batch(64, 64, 1, 2));
  const LayerDiagnosis diagnosis = layer.Diagnose(draw.Batch(64, 64, 1, 2), Last(layer, 10));
  EXPECT_EQ(diagnosis.verdict, Verdict::kTrainEvalGap);
  EXPECT_EQ(diagnosis.main_cause, Cause::kTooFewUpdates);
  EXPECT_NEAR(diagnosis.effective_batches, 1.02, 0.001);
  EXPECT_THAT(diagnosis.advice, HasSubstr("Set momentum to 0.01"));
}

// The other way round: 0.001 for a short fine-tuning, and evaluation after 100 steps.
TEST(ReportedLayer, MomentumTooSmallForAShortTraining) {
  Draw draw(1);
  TrainedLayer layer(16);
  layer.average.momentum = 0.001;
  for (int i = 0; i < 100; ++i) layer.Train(draw.Batch(256, 16, 4, 0.5));
  const LayerDiagnosis diagnosis = layer.Diagnose(draw.Batch(256, 16, 4, 0.5));
  EXPECT_EQ(diagnosis.verdict, Verdict::kTrainEvalGap);
  EXPECT_EQ(diagnosis.main_cause, Cause::kInitialisation);
  EXPECT_GT(ShareOf(diagnosis, Cause::kInitialisation), 0.9);
  EXPECT_THAT(diagnosis.advice, HasSubstr("4603 batches"));
}

// 'Training with batch size 2 (or 4) is fine, evaluation collapses': detection and segmentation at small batches
// (PyTorch issue 4741 and many like it).
TEST(ReportedLayer, SmallBatchesTrainAndDoNotEvaluate) {
  Draw draw(4741);
  TrainedLayer layer(64);
  for (int i = 0; i < 2000; ++i) layer.Train(draw.Batch(4, 64, 1, 2));
  const LayerDiagnosis diagnosis = layer.Diagnose(draw.Batch(4, 64, 1, 2));
  EXPECT_EQ(diagnosis.verdict, Verdict::kBatchTooSmall);
  EXPECT_EQ(diagnosis.main_cause, Cause::kSamplingNoise);
  EXPECT_GT(diagnosis.RelativeGap(), 0.3);
  EXPECT_TRUE(diagnosis.flags[0].Has(ChannelFlag::kNoisyBatch));
}

// mmsegmentation issue 272 and others: pooling to [1, 512, 1, 1] in DeepLab with one image ('Expected more than 1 value
// per channel when training').
TEST(ReportedLayer, OneImageThroughGlobalPooling) {
  Draw draw(272);
  TrainedLayer layer(512);
  for (int i = 0; i < 50; ++i) layer.Train(draw.Batch(4, 512, 0, 1));
  const LayerDiagnosis diagnosis = layer.Diagnose(draw.Batch(1, 512, 0, 1));
  EXPECT_EQ(diagnosis.verdict, Verdict::kBatchTooSmall);
  EXPECT_FALSE(diagnosis.gap.has_value());
  EXPECT_TRUE(diagnosis.flags[511].Has(ChannelFlag::kBatchTooSmall));
}

// Keras pull request 9965: a frozen layer, pre-trained on other data, still trains with the batch's statistics;
// inference uses the old ones.
TEST(ReportedLayer, FrozenStatisticsOfThePretrainingData) {
  Draw draw(9965);
  TrainedLayer layer(32);
  for (int i = 0; i < 300; ++i) layer.Train(draw.Batch(64, 32, 0, 1));
  std::vector<Moments> history;
  for (int i = 0; i < 30; ++i) history.push_back(MomentsOf(draw.Batch(64, 32, 1.5, 2)));  // none is folded in
  const LayerDiagnosis diagnosis = layer.Diagnose(draw.Batch(64, 32, 1.5, 2), history);
  EXPECT_EQ(diagnosis.verdict, Verdict::kTrainEvalGap);
  EXPECT_EQ(diagnosis.main_cause, Cause::kMomentumLag);
  EXPECT_THAT(diagnosis.explanation, HasSubstr("frozen"));
}

// Keras issue 6570: 'frozen' layers whose statistics follow the fine-tuning data all the same; the old data then
// suffer.
TEST(ReportedLayer, FrozenLayerWasUpdated) {
  Draw draw(6570);
  TrainedLayer layer(32);
  for (int i = 0; i < 300; ++i) layer.Train(draw.Batch(64, 32, 0, 1));
  for (int i = 0; i < 200; ++i) layer.Train(draw.Batch(64, 32, 1.5, 2));
  const LayerDiagnosis diagnosis = layer.Diagnose(draw.Batch(64, 32, 0, 1), Last(layer, 20));
  EXPECT_EQ(diagnosis.verdict, Verdict::kTrainEvalGap);
  EXPECT_EQ(diagnosis.main_cause, Cause::kDataShift);
  EXPECT_FALSE(diagnosis.history_is_mixed);
  EXPECT_THAT(diagnosis.explanation, HasSubstr("this batch comes from other data"));
}

// DCGAN-tensorflow issue 266 and domain adaptation: one layer is fed real and generated batches in turn, and its
// running statistics are of neither.
TEST(ReportedLayer, TwoDomainsShareOneLayer) {
  Draw draw(266);
  TrainedLayer layer(16);
  for (int i = 0; i < 400; ++i) layer.Train(draw.Batch(64, 16, i % 2 ? 2 : -2, 1));
  for (double domain : {-2, 2}) {
    const LayerDiagnosis diagnosis = layer.Diagnose(draw.Batch(64, 16, domain, 1), Last(layer, 20));
    EXPECT_EQ(diagnosis.verdict, Verdict::kTrainEvalGap);
    EXPECT_EQ(diagnosis.main_cause, Cause::kDataShift);
    EXPECT_GT(diagnosis.RelativeGap(), 1);
    EXPECT_TRUE(diagnosis.history_is_mixed);
    EXPECT_THAT(diagnosis.explanation, HasSubstr("of several kinds"));
  }
}

// The same, 0.6 deviations apart from the middle: what lies between the domains must not pass for noise of batches.
TEST(ReportedLayer, TwoDomainsThatLieCloser) {
  Draw draw(2018);
  TrainedLayer layer(16);
  for (int i = 0; i < 400; ++i) layer.Train(draw.Batch(64, 16, i % 2 ? 0.6 : -0.6, 1));
  const LayerDiagnosis diagnosis = layer.Diagnose(draw.Batch(64, 16, 0.6, 1), Last(layer, 20));
  EXPECT_EQ(diagnosis.verdict, Verdict::kTrainEvalGap);
  EXPECT_EQ(diagnosis.main_cause, Cause::kDataShift);
  EXPECT_GT(diagnosis.independent_values, 32);
}

// track_running_stats = False (or set after construction): evaluation goes on using the batch, and outputs depend on
// it.
TEST(ReportedLayer, RunningStatisticsAreNotKept) {
  Draw draw(10856);
  DiagnosedLayer layer{.num_features = 4};
  const LayerDiagnosis diagnosis = *DiagnoseLayer(layer, MomentsOf(draw.Batch(64, 4, 3, 1)));
  EXPECT_EQ(diagnosis.verdict, Verdict::kNotTracked);
  EXPECT_FALSE(diagnosis.gap.has_value());
  EXPECT_THAT(diagnosis.advice, HasSubstr("track_running_stats"));
}

// PyTorch issues 88474 and 90342: one overflow in float16 and running_mean is inf, running_var NaN, for good; training
// recovers, evaluation is all NaN.
TEST(ReportedLayer, OneOverflowInHalfPrecision) {
  Draw draw(88474);
  TrainedLayer layer(4);
  for (int i = 0; i < 100; ++i) layer.Train(draw.Batch(64, 4, 0, 1));
  layer.mean[1] = std::numeric_limits<double>::infinity();
  layer.variance[1] = std::numeric_limits<double>::quiet_NaN();
  const LayerDiagnosis diagnosis = layer.Diagnose(draw.Batch(64, 4, 0, 1));
  EXPECT_EQ(diagnosis.verdict, Verdict::kNonFinite);
  EXPECT_FALSE(diagnosis.gap.has_value());
  EXPECT_THAT(diagnosis.explanation, HasSubstr("channel 1:"));
}

// Stochastic weight averaging without update_bn: new weights behind old statistics, with batches of the averaged model
// as history.
TEST(ReportedLayer, AveragedWeightsKeptTheOldStatistics) {
  Draw draw(1803);
  TrainedLayer layer(64);
  for (int i = 0; i < 100; ++i) layer.Train(draw.Batch(128, 64, 0.2, 1));
  std::vector<Moments> history;
  for (int i = 0; i < 5; ++i) history.push_back(MomentsOf(draw.Batch(128, 64, 0.1, 0.4)));
  const LayerDiagnosis diagnosis = layer.Diagnose(draw.Batch(128, 64, 0.1, 0.4), history);
  EXPECT_EQ(diagnosis.verdict, Verdict::kTrainEvalGap);
  EXPECT_EQ(diagnosis.main_cause, Cause::kMomentumLag);
  EXPECT_THAT(diagnosis.advice, HasSubstr("alibrate"));
  EXPECT_LT(diagnosis.gap->scale_ratio, 0.5);
}

// After pruning: weights of 0 keep their channels constant, filters of 0 feed constants in. No gap, but flags.
TEST(ReportedLayer, PrunedChannelsAreDead) {
  Draw draw(12);
  TrainedLayer layer(4);
  layer.weight = {1, 0, 1, 1};
  const auto pruned = [&draw] {
    ValueBatch batch = draw.Batch(64, 4, 0, 1);
    batch[2].assign(64, 0.25);
    return batch;
  };
  for (int i = 0; i < 500; ++i) layer.Train(pruned());
  const LayerDiagnosis diagnosis = layer.Diagnose(pruned());
  EXPECT_EQ(diagnosis.verdict, Verdict::kHealthy);
  EXPECT_TRUE(diagnosis.flags[1].Has(ChannelFlag::kFrozenAffine));
  EXPECT_TRUE(diagnosis.flags[2].Has(ChannelFlag::kDead));
  EXPECT_TRUE(diagnosis.flags[2].Has(ChannelFlag::kConstant));
  EXPECT_THAT(diagnosis.explanation, HasSubstr("DEAD: channel 2."));
}

}  // namespace
}  // namespace normserve
