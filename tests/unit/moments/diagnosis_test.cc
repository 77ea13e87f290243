#include "server/moments/diagnosis.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "tests/unit/moments/trained_layer.h"
#include "tests/unit/server/status_matchers.h"

namespace normserve {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

double ShareOf(const LayerDiagnosis& diagnosis, Cause cause) {
  for (const CauseShare& share : diagnosis.causes) {
    if (share.cause == cause) return share.share;
  }
  return 0;
}

TEST(DiagnoseLayer, SharesAddUpToTheGap) {
  Draw draw(1);
  for (int trial = 0; trial < 50; ++trial) {
    TrainedLayer layer(3);
    layer.average.momentum = draw.Uniform();
    layer.biased = trial % 3 == 0;
    for (int64_t k = draw.Between(0, 9); k > 0; --k) layer.Train(draw.Batch(20, 3, 2, 3));
    const LayerDiagnosis diagnosis = layer.Diagnose(draw.Batch(draw.Between(2, 99), 3, 1, 2));
    double sum = 0;
    for (const CauseShare& cause : diagnosis.causes) sum += cause.share;
    EXPECT_NEAR(sum, diagnosis.gap->rms, 1e-12);
    if (layer.biased) {
      EXPECT_EQ(ShareOf(diagnosis, Cause::kBessel), 0);
    }
  }
}

// One update of a layer from mean 0 and variance 1 on exactly these statistics: what is left once the start is divided
// out is Bessel's correction alone, to the bit that sums allow.
TEST(DiagnoseLayer, InitialisationIsDividedOutExactly) {
  Draw draw(2);
  TrainedLayer layer(4);
  const ValueBatch batch = draw.Batch(8, 4, 7, 0.3);
  layer.Train(batch);
  const LayerDiagnosis diagnosis = layer.Diagnose(batch);
  EXPECT_DOUBLE_EQ(diagnosis.initial_share, 0.9);
  EXPECT_EQ(diagnosis.main_cause, Cause::kInitialisation);
  EXPECT_NEAR(ShareOf(diagnosis, Cause::kBessel), 1 - std::sqrt(7.0 / 8), 1e-3);  // epsilon beside variance 0.09
  EXPECT_NEAR(ShareOf(diagnosis, Cause::kSamplingNoise), 0, 1e-12);
}

TEST(DiagnoseLayer, OtherInitialStatisticsAreDividedOutToo) {
  Draw draw(3);
  TrainedLayer layer(2);
  layer.mean = {40, 50};
  layer.variance = {9, 9};
  const std::vector<double> initial_mean = layer.mean, initial_variance = layer.variance;
  const ValueBatch batch = draw.Batch(100, 2, 0, 1);
  layer.Train(batch);
  DiagnosedLayer diagnosed = layer.Diagnosed();
  diagnosed.statistics.initial_mean = initial_mean;
  diagnosed.statistics.initial_variance = initial_variance;
  const LayerDiagnosis diagnosis = *DiagnoseLayer(diagnosed, MomentsOf(batch));
  EXPECT_EQ(diagnosis.main_cause, Cause::kInitialisation);
  EXPECT_LT(diagnosis.gap->rms - ShareOf(diagnosis, Cause::kInitialisation), 0.01);
}

// Statistics set from elsewhere while the counter says 3 batches: 0.729 of variance 1 cannot be in a variance of 0.08.
TEST(DiagnoseLayer, StatisticsThatCannotHoldTheStartAreNotDebiased) {
  TrainedLayer layer(1);
  layer.num_batches = 3;
  layer.mean = {0.5};
  layer.variance = {0.08};
  const LayerDiagnosis diagnosis = *DiagnoseLayer(layer.Diagnosed(), {.count = 1000, .mean = {0.5}, .m2 = {80}});
  EXPECT_EQ(diagnosis.initial_share, 0);
  EXPECT_EQ(diagnosis.verdict, Verdict::kHealthy);
}

// The batch after has the gap that the batch before foretold, up to what two batches differ by.
TEST(DiagnoseLayer, PredictsTheGapOfALaterBatch) {
  Draw draw(4);
  for (int updates : {0, 1, 5, 20}) {
    TrainedLayer layer(16);
    for (int i = 0; i < updates; ++i) layer.Train(draw.Batch(500, 16, 3, 2));
    const LayerDiagnosis diagnosis = layer.Diagnose(draw.Batch(500, 16, 3, 2));
    const double measured = layer.MeasuredGap(draw.Batch(500, 16, 3, 2));
    EXPECT_NEAR(diagnosis.gap->rms, measured, 2 * diagnosis.noise.rms) << updates;
    if (updates < 20) {
      EXPECT_GT(measured, 4 * diagnosis.noise.rms) << updates;  // else the bound says nothing
    }
  }
}

TEST(DiagnoseLayer, OneStateCannotTellLagFromShift) {
  Draw draw(5);
  TrainedLayer layer(8);
  for (int i = 0; i < 200; ++i) layer.Train(draw.Batch(100, 8, 0, 1));
  const LayerDiagnosis diagnosis = layer.Diagnose(draw.Batch(100, 8, 2, 1));
  EXPECT_EQ(diagnosis.verdict, Verdict::kTrainEvalGap);
  EXPECT_EQ(diagnosis.main_cause, Cause::kLagOrShift);
}

TEST(DiagnoseLayer, HistoryLikeTheNewestSaysLag) {
  Draw draw(6);
  TrainedLayer layer(8);
  layer.average.momentum = 0.001;
  for (int i = 0; i < 20000; ++i) layer.Train(draw.Batch(2, 8, 0, 1));
  std::vector<Moments> history;
  for (int i = 0; i < 10; ++i) {
    const ValueBatch batch = draw.Batch(100, 8, 2, 1);
    layer.Train(batch);
    history.push_back(MomentsOf(batch));
  }
  const LayerDiagnosis diagnosis = layer.Diagnose(draw.Batch(100, 8, 2, 1), history);
  EXPECT_EQ(diagnosis.verdict, Verdict::kTrainEvalGap);
  EXPECT_EQ(diagnosis.main_cause, Cause::kMomentumLag);
  // What is not finite is left out.
  history[4].mean[3] = kNaN;
  history[7].m2[0] = kNaN;
  const LayerDiagnosis without = layer.Diagnose(draw.Batch(100, 8, 2, 1), history);
  EXPECT_EQ(without.main_cause, Cause::kMomentumLag);
  EXPECT_THAT(without.explanation, testing::HasSubstr("8 earlier batches"));
}

// Of the seven batches before the newest some are of the new data, so that their average is neither. With momentum 0.1
// half of the way is gone after seven batches.
TEST(DiagnoseLayer, AStepIsAShiftUntilStatisticsAreHalfWayAndThenALag) {
  for (int since = 1; since <= 9; ++since) {
    Draw draw(70);
    TrainedLayer layer(8);
    for (int i = 0; i < 60; ++i) layer.Train(draw.Batch(100, 8, 0, 1));
    for (int i = 0; i < since; ++i) layer.Train(draw.Batch(100, 8, 2, 1));
    const LayerDiagnosis diagnosis = layer.DiagnoseNewest();
    EXPECT_EQ(diagnosis.verdict, Verdict::kTrainEvalGap) << since;
    EXPECT_EQ(diagnosis.main_cause, since < 7 ? Cause::kDataShift : Cause::kMomentumLag)
        << since << ": " << diagnosis.explanation;
    EXPECT_EQ(diagnosis.batches_since_change, since < 8 ? since - 1 : 0) << since;
    if (since == 1 || since >= 8) continue;
    EXPECT_THAT(diagnosis.explanation,
                testing::HasSubstr("The data changed " + std::to_string(since) + " batches ago"));
  }
}

TEST(DiagnoseLayer, HistoryLikeTheRunningStatisticsSaysShift) {
  Draw draw(7);
  TrainedLayer layer(8);
  for (int i = 0; i < 200; ++i) layer.Train(draw.Batch(100, 8, 0, 1));
  const absl::Span<const Moments> history = absl::MakeConstSpan(layer.seen).last(10);
  const LayerDiagnosis diagnosis = layer.Diagnose(draw.Batch(100, 8, 2, 1), history);
  EXPECT_EQ(diagnosis.verdict, Verdict::kTrainEvalGap);
  EXPECT_EQ(diagnosis.main_cause, Cause::kDataShift);
}

TEST(DiagnoseLayer, HistoryLikeNeitherLeavesItOpen) {
  Draw draw(8);
  TrainedLayer layer(8);
  for (int i = 0; i < 200; ++i) layer.Train(draw.Batch(100, 8, 0, 1));
  const std::vector<Moments> history = {MomentsOf(draw.Batch(100, 8, -5, 1)), MomentsOf(draw.Batch(100, 8, -5, 1))};
  EXPECT_EQ(layer.Diagnose(draw.Batch(100, 8, 5, 1), history).main_cause, Cause::kLagOrShift);
  // One earlier batch is no history.
  EXPECT_EQ(layer.Diagnose(draw.Batch(100, 8, 5, 1), {layer.seen.back()}).main_cause, Cause::kLagOrShift);
  // Nor is one that is not finite.
  const std::vector<Moments> lost = {
      layer.seen.back(), {.count = 9, .mean = std::vector<double>(8, kNaN), .m2 = std::vector<double>(8, 1)}};
  EXPECT_EQ(layer.Diagnose(draw.Batch(100, 8, 5, 1), lost).main_cause, Cause::kLagOrShift);
}

// Values of an image hang together: 1,000 pixels of one value each sample are as good as one.
TEST(DiagnoseLayer, ValuesThatHangTogetherMakeMoreNoise) {
  Draw draw(9);
  const auto images = [&draw] {
    ValueBatch batch = draw.Batch(32, 8, 1, 2);
    for (auto& channel : batch) {
      std::vector<double> pixels;
      for (double value : channel) pixels.insert(pixels.end(), 50, value);
      channel = std::move(pixels);
    }
    return batch;
  };
  TrainedLayer layer(8);
  for (int i = 0; i < 200; ++i) layer.Train(images());
  const Moments batch = MomentsOf(images());
  DiagnosedLayer diagnosed = layer.Diagnosed();
  EXPECT_EQ(DiagnoseLayer(diagnosed, batch)->verdict, Verdict::kTrainEvalGap);  // takes 1,600 values for independent
  diagnosed.samples_per_batch = 32;
  EXPECT_EQ(DiagnoseLayer(diagnosed, batch)->verdict, Verdict::kHealthy);
  // Measured rather than told: earlier batches differ by as much.
  diagnosed.samples_per_batch = 0;
  const absl::Span<const Moments> history = absl::MakeConstSpan(layer.seen).last(12);
  EXPECT_NEAR(DiagnoseLayer(diagnosed, batch, history)->noise.rms, std::sqrt(1.5 / 32), 0.12);
  diagnosed.samples_per_batch = 32;
  const ValueBatch independent = draw.Batch(1600, 8, 1, 2);
  std::vector<Moments> calm;
  for (int i = 0; i < 12; ++i) calm.push_back(MomentsOf(draw.Batch(1600, 8, 1, 2)));
  EXPECT_NEAR(DiagnoseLayer(diagnosed, MomentsOf(independent), calm)->noise.rms, std::sqrt(1.5 / 1600), 0.01);
}

// However far batches lie apart, a sixteenth of the values is taken for independent, also where every value is a
// sample.
TEST(DiagnoseLayer, BatchesThatAreAllDifferentAreNotNoise) {
  Draw draw(12);
  TrainedLayer layer(8);
  for (int i = 0; i < 200; ++i) layer.Train(draw.Batch(64, 8, 3 * draw.Normal(), 1));
  DiagnosedLayer diagnosed = layer.Diagnosed();
  const Moments batch = MomentsOf(draw.Batch(64, 8, 5, 1));
  const absl::Span<const Moments> history = absl::MakeConstSpan(layer.seen).last(10);
  EXPECT_EQ(DiagnoseLayer(diagnosed, batch, history)->independent_values, 4);
  EXPECT_EQ(DiagnoseLayer(diagnosed, batch, history)->verdict, Verdict::kTrainEvalGap);
  EXPECT_TRUE(DiagnoseLayer(diagnosed, batch, history)->history_is_mixed);
  diagnosed.samples_per_batch = 64;
  EXPECT_EQ(DiagnoseLayer(diagnosed, batch, history)->independent_values, 4);
  EXPECT_EQ(DiagnoseLayer(diagnosed, batch, history)->verdict, Verdict::kTrainEvalGap);
}

// In a million values sampling leaves nothing to see, yet 2 % is no gap that anybody minds.
TEST(DiagnoseLayer, WhatNobodyWouldNoticeIsHealthy) {
  TrainedLayer layer(1);
  layer.num_batches = 1000;
  layer.mean = {1e-6};
  const auto batch = [](double mean) { return Moments{.count = 1000000, .mean = {mean}, .m2 = {1e6}}; };
  const LayerDiagnosis diagnosis = *DiagnoseLayer(layer.Diagnosed(), batch(0.02));
  EXPECT_GT(diagnosis.gap->rms, diagnosis.noise.limit);
  EXPECT_EQ(diagnosis.verdict, Verdict::kHealthy);
  // Nor is history another than the newest for it.
  EXPECT_EQ(DiagnoseLayer(layer.Diagnosed(), batch(2.02), {batch(2), batch(2)})->main_cause, Cause::kMomentumLag);
  EXPECT_FALSE(DiagnoseLayer(layer.Diagnosed(), batch(2), {batch(2), batch(2.02), batch(2)})->history_is_mixed);
}

TEST(DiagnoseLayer, NoGapHasNoCause) {
  TrainedLayer layer(1);
  layer.biased = true;
  layer.mean = {0.5};
  const LayerDiagnosis diagnosis = *DiagnoseLayer(layer.Diagnosed(), {.count = 64, .mean = {0.5}, .m2 = {64}});
  EXPECT_EQ(diagnosis.verdict, Verdict::kHealthy);
  EXPECT_EQ(diagnosis.gap->rms, 0);
  EXPECT_FALSE(diagnosis.main_cause.has_value());
}

TEST(DiagnoseLayer, AllOfAnUntrainedLayersGapIsItsStart) {
  Draw draw(13);
  for (bool biased : {true, false}) {
    TrainedLayer layer(2);
    layer.biased = biased;
    const LayerDiagnosis diagnosis = layer.Diagnose(draw.Batch(10, 2, 1, 2));
    EXPECT_EQ(ShareOf(diagnosis, Cause::kBessel) > 0.01, !biased);
    EXPECT_NEAR(ShareOf(diagnosis, Cause::kSamplingNoise), 0, 1e-12);
  }
}

// Statistics that were loaded without a counter are taken as they are.
TEST(DiagnoseLayer, LoadedStatisticsHoldNothingOfTheStart) {
  Draw draw(14);
  TrainedLayer layer(2);
  layer.mean = {3, 3};
  layer.variance = {4, 4};
  const LayerDiagnosis diagnosis = layer.Diagnose(draw.Batch(64, 2, 3, 2));
  EXPECT_EQ(diagnosis.verdict, Verdict::kHealthy);
  EXPECT_EQ(diagnosis.initial_share, 0);
}

// Three batches after statistics were set there is nothing of mean 0 and variance 1 to divide out: 0.729 of it would
// make a gap of a sound layer.
TEST(DiagnoseLayer, StatisticsThatWereSetHoldNothingOfTheStartAndLittleNoise) {
  Draw draw(21);
  TrainedLayer layer(4);
  layer.mean.assign(4, 5);
  layer.variance.assign(4, 9);
  for (int i = 0; i < 3; ++i) layer.Train(draw.Batch(200, 4, 5, 3));
  const Moments batch = MomentsOf(draw.Batch(200, 4, 5, 3));
  DiagnosedLayer diagnosed = layer.Diagnosed();
  EXPECT_GT(DiagnoseLayer(diagnosed, batch)->initial_share, 0.7);
  diagnosed.batches_since_set = 3;
  const LayerDiagnosis diagnosis = *DiagnoseLayer(diagnosed, batch);
  EXPECT_EQ(diagnosis.initial_share, 0);
  EXPECT_EQ(diagnosis.verdict, Verdict::kHealthy);
  // Weights 0.081, 0.09 and 0.1.
  EXPECT_NEAR(diagnosis.effective_batches, 1 / (0.081 * 0.081 + 0.09 * 0.09 + 0.01), 1e-9);
}

TEST(EffectiveBatchesSinceSet, IsOneOverTheSumOfTheSquaredWeights) {
  for (const AverageKind kind : {AverageKind::kExponential, AverageKind::kCumulative, AverageKind::kZeroDebiased}) {
    for (const double momentum : {1e-9, 0.1, 0.5, 1.0}) {
      for (const int64_t before : {0, 1, 7}) {
        for (const int64_t since : {1, 2, 5, 40}) {
          double squares = 0;
          for (int64_t k = before + 1; k <= before + since; ++k) {
            const double newest = kind == AverageKind::kCumulative ? 1.0 / static_cast<double>(k)
                                  : kind == AverageKind::kZeroDebiased
                                      ? momentum / -std::expm1(static_cast<double>(k) * std::log1p(-momentum))
                                      : momentum;
            squares = squares * (1 - newest) * (1 - newest) + newest * newest;
          }
          const double effective =
              EffectiveBatchesSinceSet({.kind = kind, .momentum = momentum}, since, before + since);
          EXPECT_NEAR(effective * squares, 1, 1e-6) << momentum << " " << before << " " << since;
        }
      }
    }
  }
  EXPECT_EQ(EffectiveBatchesSinceSet({}, 0, 5), std::numeric_limits<double>::infinity());
}

// The variance of a constant channel is 0.9^k of the start: divided out, rounding leaves a little below 0.
TEST(DiagnoseLayer, AConstantChannelDebiasesToZero) {
  int below_zero = 0;
  for (int updates = 1; updates <= 40; ++updates) {
    TrainedLayer layer(1);
    const ValueBatch constant = {std::vector<double>(64, 0.25)};
    for (int i = 0; i < updates; ++i) layer.Train(constant);
    below_zero += layer.variance[0] < std::pow(0.9, updates);
    const LayerDiagnosis diagnosis = layer.Diagnose(constant);
    EXPECT_GT(diagnosis.initial_share, 0) << updates;
    // Without epsilon evaluation would divide by what is left.
    layer.epsilon = 0;
    for (const CauseShare& cause : layer.Diagnose(constant).causes) EXPECT_TRUE(std::isfinite(cause.share)) << updates;
  }
  EXPECT_GT(below_zero, 0);
}

TEST(DiagnoseLayer, NoEvidenceIsNoVerdictButForTheObvious) {
  Draw draw(10);
  TrainedLayer layer(2);
  EXPECT_EQ(DiagnoseLayer(layer.Diagnosed(), {})->verdict, Verdict::kNeverUpdated);
  layer.Train(draw.Batch(10, 2, 0, 1));
  EXPECT_EQ(DiagnoseLayer(layer.Diagnosed(), {})->verdict, Verdict::kNoEvidence);
  EXPECT_FALSE(DiagnoseLayer(layer.Diagnosed(), {})->gap.has_value());
  layer.variance[1] = kNaN;
  EXPECT_EQ(DiagnoseLayer(layer.Diagnosed(), {})->verdict, Verdict::kNonFinite);
}

TEST(DiagnoseLayer, EpsilonZeroAndVarianceZeroHaveNoOutput) {
  TrainedLayer layer(1);
  layer.epsilon = 0;
  layer.variance = {0};
  layer.num_batches = 5;
  const LayerDiagnosis diagnosis = *DiagnoseLayer(layer.Diagnosed(), {.count = 10, .mean = {0}, .m2 = {10}});
  EXPECT_EQ(diagnosis.verdict, Verdict::kNonFinite);
  EXPECT_THAT(diagnosis.advice, testing::HasSubstr("epsilon"));
}

TEST(DiagnoseLayer, LengthsThatDifferAreRefused) {
  TrainedLayer layer(2);
  EXPECT_THAT(DiagnoseLayer(layer.Diagnosed(), {.count = 2, .mean = {0}, .m2 = {1}}).status(),
              Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kShapeMismatch));
  const std::vector<Moments> history = {{.count = 2, .mean = {0}, .m2 = {1}}};
  EXPECT_THAT(DiagnoseLayer(layer.Diagnosed(), {}, history).status(),
              Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kShapeMismatch));
}

// Explanations hold the numbers a reader would look up next.
TEST(DiagnoseLayer, SaysWhatItSaw) {
  Draw draw(11);
  TrainedLayer layer(3);
  layer.weight = {1, 0, 1};
  layer.Train(draw.Batch(100, 3, 4, 2));
  const LayerDiagnosis diagnosis = layer.Diagnose(draw.Batch(100, 3, 4, 2));
  for (const char* part : {"100 values a channel", "90 % of the running statistics", "momentum 0.1", "INITIALISATION",
                           "FROZEN_AFFINE: channel 1."}) {
    EXPECT_THAT(diagnosis.explanation, testing::HasSubstr(part));
  }
  EXPECT_THAT(diagnosis.advice, testing::HasSubstr("44 batches"));  // 0.9^44 < 1 %
}

TEST(RankWorstFirst, NonFiniteThenUntrainableThenFaultsThenNoise) {
  const auto made = [](Verdict verdict, double rms) {
    LayerDiagnosis diagnosis{.verdict = verdict};
    if (rms >= 0) diagnosis.gap = LayerGap{.rms = rms, .unit = 1};
    return diagnosis;
  };
  const std::vector<LayerDiagnosis> layers = {
      made(Verdict::kHealthy, 0.9),       made(Verdict::kTrainEvalGap, 0.3), made(Verdict::kNotTracked, -1),
      made(Verdict::kNonFinite, -1),      made(Verdict::kTrainEvalGap, 0.7), made(Verdict::kBatchTooSmall, -1),
      made(Verdict::kBatchTooSmall, 0.5), made(Verdict::kNeverUpdated, 2),   made(Verdict::kHealthy, 0.9)};
  EXPECT_EQ(RankWorstFirst(layers), (std::vector<size_t>{3, 5, 7, 4, 6, 1, 0, 8, 2}));
}

TEST(VerdictName, IsTheEnumeratorInCapitals) {
  EXPECT_EQ(VerdictName(Verdict::kHealthy), "HEALTHY");
  EXPECT_EQ(VerdictName(Verdict::kNoEvidence), "NO_EVIDENCE");
  EXPECT_EQ(CauseName(Cause::kInitialisation), "INITIALISATION");
  EXPECT_EQ(CauseName(Cause::kLagOrShift), "LAG_OR_SHIFT");
}

// The batch that was folded in last is the evidence; what is foretold is held against batches of the same kind that
// come later. For a large gap and for none, whatever the batch weighs in the statistics.
TEST(PredictedGap, IsThatOfLaterBatches) {
  const struct {
    const char* name;
    RunningAverage average;
    int updates;
    int64_t count;
    double shift;  // of the newest batches' mean
  } cases[] = {{"momentum 0.1", {.momentum = 0.1}, 60, 64, 0},
               {"momentum 0.5", {.momentum = 0.5}, 60, 64, 0},
               {"momentum 1", {.momentum = 1}, 60, 64, 0},
               {"momentum 0.9, small batches", {.momentum = 0.9}, 60, 8, 0},
               {"one batch", {.kind = AverageKind::kCumulative}, 1, 64, 0},
               {"two batches", {.kind = AverageKind::kCumulative}, 2, 64, 0},
               {"zero-debiased", {.kind = AverageKind::kZeroDebiased, .momentum = 0.3}, 3, 64, 0},
               {"shifted", {.momentum = 0.2}, 60, 64, 3},
               {"early", {.momentum = 0.1}, 3, 64, 0}};
  for (const auto& each : cases) {
    double foretold = 0, later = 0;
    for (uint64_t seed = 0; seed < 30; ++seed) {
      Draw draw(seed);
      TrainedLayer layer(32);
      layer.average = each.average;
      for (int i = 0; i + 1 < each.updates; ++i) layer.Train(draw.Batch(each.count, 32, 3, 2));
      layer.Train(draw.Batch(each.count, 32, 3 + each.shift, 2));
      const LayerDiagnosis diagnosis = layer.DiagnoseNewest();
      foretold += diagnosis.predicted_rms * diagnosis.predicted_rms;
      for (int i = 0; i < 10; ++i) {
        later += std::pow(layer.MeasuredGap(draw.Batch(each.count, 32, 3 + each.shift, 2)), 2) / 10;
      }
    }
    EXPECT_NEAR(std::sqrt(foretold / later), 1, 0.06) << each.name;
  }
}

// Values that a sample has many of are independent as far as anybody knows before batches show that they are not.
TEST(PredictedGap, SupposesIndependentValuesUntilNoiseIsMeasured) {
  Draw draw(9);
  TrainedLayer layer(16);
  for (int i = 0; i < 3; ++i) layer.Train(draw.Batch(1024, 16, 2, 1));
  const double independent = layer.DiagnoseNewest().predicted_rms;
  const LayerDiagnosis of_few_samples = layer.DiagnoseNewest(/*samples_per_batch=*/4);
  EXPECT_EQ(of_few_samples.predicted_rms, independent);
  EXPECT_EQ(of_few_samples.independent_values, 4);  // the limit's
}

// What says nothing is not taken for something: samples that are known by the moments count as those that are told.
TEST(DiagnoseLayer, MomentsThatKnowTheirSamplesNeedNoTelling) {
  Draw draw(10);
  TrainedLayer layer(8);
  for (int i = 0; i < 60; ++i) layer.Train(draw.Batch(256, 8, 0, 1));
  Moments pooled = MomentsOf(draw.Batch(256, 8, 0, 1));
  DiagnosedLayer diagnosed = layer.Diagnosed();
  EXPECT_EQ(DiagnoseLayer(diagnosed, pooled)->independent_values, 256);
  pooled.num_samples = 16;
  EXPECT_EQ(DiagnoseLayer(diagnosed, pooled)->independent_values, 16);
  diagnosed.samples_per_batch = 32;
  EXPECT_EQ(DiagnoseLayer(diagnosed, pooled)->independent_values, 32);
}

// On its own batch such a layer's evaluation is training's but for Bessel's correction; on the next it is not.
TEST(PredictedGap, OfMomentumOneIsFoundThoughTheBatchShowsNone) {
  Draw draw(7);
  TrainedLayer layer(32);
  layer.average.momentum = 1;
  for (int i = 0; i < 20; ++i) layer.Train(draw.Batch(64, 32, 3, 2));
  const LayerDiagnosis diagnosis = layer.DiagnoseNewest();
  EXPECT_LT(diagnosis.gap->rms, 0.02);
  EXPECT_EQ(diagnosis.verdict, Verdict::kTrainEvalGap) << diagnosis.explanation;
  EXPECT_EQ(diagnosis.main_cause, Cause::kTooFewUpdates);
  EXPECT_NEAR(std::accumulate(diagnosis.causes.begin(), diagnosis.causes.end(), 0.0,
                              [](double sum, const CauseShare& cause) { return sum + cause.share; }),
              diagnosis.predicted_rms, 1e-12);
  EXPECT_GT(ShareOf(diagnosis, Cause::kTooFewUpdates), 0.9 * diagnosis.predicted_rms);
  EXPECT_THAT(diagnosis.explanation, testing::HasSubstr("on the next of its kind it is about"));
}

TEST(Explanation, SaysWhatIsSupposedAndNotWhatIsBesideThePoint) {
  Draw draw(31);
  TrainedLayer layer(8);
  layer.mean.assign(8, 0.001);  // set elsewhere
  layer.num_batches = 1000;
  DiagnosedLayer diagnosed = layer.Diagnosed();
  diagnosed.samples_per_batch = 16;
  diagnosed.batches_since_set = 0;
  const auto supposed = DiagnoseLayer(diagnosed, MomentsOf(draw.Batch(12544, 8, 0.2, 1)));
  EXPECT_EQ(supposed->verdict, Verdict::kHealthy);
  EXPECT_THAT(supposed->explanation, testing::HasSubstr("if as few as 16 of the values are independent"));
  // One update of many that are needed, with four samples: the start is what shows.
  TrainedLayer young(3);
  young.Train(draw.Batch(4096, 3, 0.5, 0.3));
  DiagnosedLayer begun = young.Diagnosed();
  begun.samples_per_batch = 4;
  begun.batch_is_folded = true;
  const auto start = DiagnoseLayer(begun, young.seen.back());
  EXPECT_EQ(start->main_cause, Cause::kInitialisation);
  EXPECT_EQ(start->verdict, Verdict::kTrainEvalGap);
  EXPECT_THAT(start->explanation, testing::Not(testing::HasSubstr("Sampling alone")));
}

}  // namespace
}  // namespace normserve
