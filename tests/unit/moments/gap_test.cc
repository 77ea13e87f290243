#include "server/moments/gap.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "server/moments/running_average.h"
#include "tests/unit/moments/trained_layer.h"

namespace normserve {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

double MeanSquare(const ValueBatch& values) {
  double sum = 0, count = 0;
  for (const auto& channel : values) {
    for (double value : channel) sum += value * value, ++count;
  }
  return sum / count;
}

TEST(PredictGap, EqualsBruteForceOverValues) {
  Draw draw(1);
  for (int trial = 0; trial < 20; ++trial) {
    TrainedLayer layer(5);
    layer.epsilon = trial % 2 ? 1e-5 : 0.5;
    for (size_t c = 0; c < 5; ++c) {
      layer.mean[c] = draw.Normal();
      layer.variance[c] = 3 * draw.Uniform();
      layer.weight.push_back(static_cast<float>(2 * draw.Normal()));
    }
    const ValueBatch batch = draw.Batch(draw.Between(2, 40), 5, draw.Normal(), 0.1 + draw.Uniform());
    const LayerGap gap = PredictGap(layer.Running(), MomentsOf(batch), layer.weight, layer.epsilon);
    EXPECT_NEAR(gap.rms / layer.MeasuredGap(batch), 1, 1e-12);
    const ValueBatch eval = layer.Eval(batch), train = layer.TrainOutput(batch);
    double eval_m2 = 0, train_m2 = 0;
    for (size_t c = 0; c < 5; ++c) {
      const Moments eval_moments = MomentsOf({eval[c]}), train_moments = MomentsOf({train[c]});
      EXPECT_NEAR(gap.channels[c].offset, eval_moments.mean[0] - train_moments.mean[0], 1e-12);
      EXPECT_NEAR(gap.channels[c].scale_ratio, std::sqrt(eval_moments.m2[0] / train_moments.m2[0]), 1e-12);
      double squares = 0;
      for (size_t i = 0; i < batch[c].size(); ++i) squares += std::pow(eval[c][i] - train[c][i], 2);
      EXPECT_NEAR(gap.channels[c].rms, std::sqrt(squares / static_cast<double>(batch[c].size())), 1e-12);
      eval_m2 += eval_moments.m2[0], train_m2 += train_moments.m2[0];
    }
    EXPECT_NEAR(gap.scale_ratio, std::sqrt(eval_m2 / train_m2), 1e-12);
  }
}

TEST(PredictGap, UnitIsTheRootMeanSquareOfTheWeight) {
  const Moments batch{.count = 4, .mean = {0, 0}, .m2 = {4, 4}};
  const NormalizationStatistics running{.mean = {0, 0}, .variance = {1, 1}};
  EXPECT_EQ(PredictGap(running, batch, {}, 0).unit, 1);
  EXPECT_EQ(PredictGap(running, batch, {1, 7}, 0).unit, 5);
}

TEST(PredictGap, AZeroWeightHasNoGapAndAConstantChannelOnlyAnOffset) {
  const Moments batch{.count = 4, .mean = {3, 3}, .m2 = {0, 4}};
  const LayerGap gap = PredictGap({.mean = {1, kInfinity}, .variance = {4, 0}}, batch, {5, 0}, 0);
  EXPECT_EQ(gap.channels[0].rms, 5);
  EXPECT_EQ(gap.channels[0].offset, 5);
  EXPECT_EQ(gap.channels[0].scale_ratio, 1);
  EXPECT_EQ(gap.channels[1].rms, 0);
}

TEST(PredictGap, DividingByZeroIsInfiniteNeverNaN) {
  const Moments alive{.count = 4, .mean = {3}, .m2 = {4}}, constant{.count = 4, .mean = {3}, .m2 = {0}};
  EXPECT_EQ(PredictGap({.mean = {1}, .variance = {0}}, alive, {}, 0).rms, kInfinity);
  EXPECT_EQ(PredictGap({.mean = {3}, .variance = {0}}, alive, {}, 0).rms, kInfinity);
  EXPECT_EQ(PredictGap({.mean = {1}, .variance = {0}}, constant, {}, 0).rms, kInfinity);
  EXPECT_EQ(PredictGap({.mean = {3}, .variance = {0}}, constant, {}, 0).rms, 0);
}

// A layer that has converged on the unbiased variance of batches of n puts out sqrt((n - 1) / n) of training's in
// evaluation: sqrt(7/8) at n = 8.
TEST(PredictGap, BesselsCorrectionAtEightValues) {
  const LayerGap gap =
      PredictGap({.mean = {13.75}, .variance = {1400.0 / 7}}, {.count = 8, .mean = {13.75}, .m2 = {1400}}, {}, 0);
  EXPECT_DOUBLE_EQ(gap.scale_ratio, std::sqrt(7.0 / 8));
  EXPECT_DOUBLE_EQ(gap.rms, 1 - std::sqrt(7.0 / 8));
}

// Ten such layers of 64 values in a row, each with statistics of what training gave it: the variance at the end is
// (63/64)^10 of training's, by brute force and as predicted layer by layer.
TEST(ChainScaleRatio, BesselsCorrectionOfTenLayersMultiplies) {
  Draw draw(3);
  ValueBatch train = draw.Batch(64, 2, 5, 3), eval = train;
  std::vector<LayerGap> gaps;
  for (int i = 0; i < 10; ++i) {
    TrainedLayer layer(2);
    layer.epsilon = 0;
    layer.average.momentum = 1;
    layer.Train(train);
    gaps.push_back(PredictGap(layer.Running(), MomentsOf(train), {}, 0));
    eval = layer.Eval(eval);
    train = layer.TrainOutput(train);
  }
  EXPECT_NEAR(MeanSquare(eval) / MeanSquare(train), std::pow(63.0 / 64, 10), 1e-12);
  EXPECT_NEAR(ChainScaleRatio(gaps), std::pow(63.0 / 64, 5), 1e-12);
}

// Against 4,000 batches: the mean square of the gap to exact statistics, and to those of one other batch, which adds as
// much again.
TEST(PredictNoise, IsTheMeanSquareOfManyDraws) {
  for (const auto& [count, epsilon, weight] : {std::tuple{32, 0.0, 1.0f}, {64, 1.0, 3.0f}, {400, 4.0, -0.5f}}) {
    Draw draw(static_cast<uint64_t>(count));
    double exact = 0, other = 0, predicted = 0;
    ValueBatch previous = draw.Batch(count, 1, 2, 2);
    for (int i = 0; i < 4000; ++i) {
      ValueBatch batch = draw.Batch(count, 1, 2, 2);
      const Moments moments = MomentsOf(batch), before = MomentsOf(previous);
      exact += std::pow(PredictGap({.mean = {2}, .variance = {4}}, moments, {weight}, epsilon).rms, 2);
      other += std::pow(
          PredictGap({.mean = before.mean, .variance = {before.UnbiasedVariance(0)}}, moments, {weight}, epsilon).rms,
          2);
      predicted += std::pow(PredictNoise(moments, {weight}, epsilon, count, kInfinity).rms, 2);
      previous = std::move(batch);
    }
    EXPECT_NEAR(exact / predicted, 1, 0.08) << count;
    EXPECT_NEAR(other / predicted, 2, 0.25) << count;
  }
}

TEST(PredictNoise, FewerIndependentValuesMakeMore) {
  const Moments batch{.count = 1000, .mean = {0}, .m2 = {1000}};
  EXPECT_DOUBLE_EQ(PredictNoise(batch, {}, 0, 1000, kInfinity).rms, std::sqrt(1.0 / 1000 + 0.5 / 999));
  EXPECT_DOUBLE_EQ(PredictNoise(batch, {}, 0, 10, kInfinity).rms, std::sqrt(1.0 / 10 + 0.5 / 9));
  EXPECT_DOUBLE_EQ(PredictNoise(batch, {}, 0, 10, 1).rms, std::sqrt(2 * (1.0 / 10 + 0.5 / 9)));
}

// 4 sigma of many channels' sum is close to the mean, of one channel far: the quantile of chi-squared, 3.2e-5.
TEST(PredictNoise, LimitComesCloserWithMoreChannels) {
  Moments batch{.count = 100, .mean = {0}, .m2 = {100}};
  const SamplingNoise one = PredictNoise(batch, {}, 0, 100, kInfinity);
  batch.mean.resize(4096, 0);
  batch.m2.resize(4096, 100);
  const SamplingNoise many = PredictNoise(batch, {}, 0, 100, kInfinity);
  EXPECT_NEAR(many.rms / one.rms, 1, 1e-12);
  EXPECT_NEAR(one.limit / one.rms, 3.4, 0.2);
  EXPECT_NEAR(many.limit / many.rms, 1.03, 0.01);
  EXPECT_EQ(PredictNoise({.count = 9, .mean = {4}, .m2 = {0}}, {}, 0, 9, 1).limit, 0);
}

TEST(RunningAverage, WhatIsLeftOfTheStart) {
  EXPECT_EQ(InitialShare({}, 0), 1);
  EXPECT_DOUBLE_EQ(InitialShare({.momentum = 0.1}, 3), 0.729);
  EXPECT_EQ(InitialShare({.momentum = 1}, 1), 0);
  EXPECT_EQ(InitialShare({.momentum = 0}, 1000), 1);
  EXPECT_EQ(InitialShare({.momentum = -0.5}, 1000), 0);
  EXPECT_EQ(InitialShare({.kind = AverageKind::kCumulative}, 0), 1);
  EXPECT_EQ(InitialShare({.kind = AverageKind::kCumulative}, 1), 0);
  EXPECT_EQ(InitialShare({.kind = AverageKind::kZeroDebiased}, 1), 0);
}

// 1 / sum of squared weights, summed.
TEST(RunningAverage, EffectiveBatchesAreTheInverseOfTheSquaredWeights) {
  for (double m : {1e-6, 0.01, 0.1, 0.5, 0.99, 1.0, 1.5}) {
    for (int64_t k : {1, 2, 10, 1000}) {
      double sum = 0, squares = 0, weight = m;
      for (int64_t i = 0; i < k; ++i, weight *= 1 - m) sum += weight, squares += weight * weight;
      EXPECT_NEAR(EffectiveBatches({.momentum = m}, k) / (sum * sum / squares), 1, 1e-12) << m << " " << k;
      EXPECT_EQ(EffectiveBatches({.kind = AverageKind::kZeroDebiased, .momentum = m}, k),
                EffectiveBatches({.momentum = m}, k));
    }
  }
  EXPECT_EQ(EffectiveBatches({.kind = AverageKind::kCumulative}, 17), 17);
  EXPECT_EQ(EffectiveBatches({}, 0), kInfinity);
  EXPECT_EQ(EffectiveBatches({.momentum = 0}, 9), 1);
  EXPECT_EQ(EffectiveBatches({.momentum = 7}, 9), 1);
}

}  // namespace
}  // namespace normserve
