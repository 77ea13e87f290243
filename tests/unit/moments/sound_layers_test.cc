// Layers with which nothing is wrong: none may raise an alarm.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "server/moments/calibration.h"
#include "server/moments/diagnosis.h"
#include "tests/unit/moments/trained_layer.h"

namespace normserve {
namespace {

absl::Span<const Moments> Last(const TrainedLayer& layer, size_t count) {
  return absl::MakeConstSpan(layer.seen).last(count);
}

// Many batches of each: at 4 sigma not one is too many.
struct SoundLayer {
  const char* name;
  RunningAverage average = {};
  bool biased = false;
  int64_t count = 64;
  size_t num_features = 32;
  int updates = 200;
};

class SoundLayerTest : public testing::TestWithParam<SoundLayer> {};

TEST_P(SoundLayerTest, RaisesNoAlarm) {
  const SoundLayer& sound = GetParam();
  Draw draw(static_cast<uint64_t>(sound.count + sound.updates));
  TrainedLayer layer(sound.num_features);
  layer.average = sound.average;
  layer.biased = sound.biased;
  for (int i = 0; i < sound.updates; ++i) layer.Train(draw.Batch(sound.count, sound.num_features, 3, 2));
  for (int i = 0; i < 100; ++i) {
    const LayerDiagnosis diagnosis = layer.Diagnose(draw.Batch(sound.count, sound.num_features, 3, 2),
                                                    i % 2 ? Last(layer, 8) : absl::Span<const Moments>());
    EXPECT_EQ(diagnosis.verdict, Verdict::kHealthy) << diagnosis.explanation;
    EXPECT_TRUE(diagnosis.advice.empty());
    EXPECT_LT(diagnosis.gap->rms, diagnosis.noise.limit);
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, SoundLayerTest,
    testing::Values(SoundLayer{.name = "PyTorchsDefault", .updates = 1000},
                    SoundLayer{.name = "OneChannel", .num_features = 1},
                    SoundLayer{.name = "Cumulative", .average = {.kind = AverageKind::kCumulative}, .updates = 200},
                    SoundLayer{.name = "ZeroDebiasedFewUpdates",
                               .average = {.kind = AverageKind::kZeroDebiased, .momentum = 0.01},
                               .updates = 20},
                    SoundLayer{
                        .name = "KerasBiasedMomentum", .average = {.momentum = 0.01}, .biased = true, .updates = 1000},
                    SoundLayer{.name = "LargeBatch", .count = 2000, .num_features = 4, .updates = 200},
                    SoundLayer{.name = "SixteenValues", .count = 16}),
    [](const auto& param) { return param.param.name; });

// Statistics that were calibrated, with a counter that says nothing of them.
TEST(SoundLayers, EvaluatedAfterCalibration) {
  Draw draw(21);
  PartSet batches(8);
  for (int i = 0; i < 50; ++i) {
    ASSERT_TRUE(batches.Add(std::to_string(i), MomentsOf(draw.Batch(64, 8, -3, 5))).ok());
  }
  const auto population = EstimatePopulation(batches, CalibrationMethod::kAlgorithm2);
  TrainedLayer layer(8);
  layer.mean = population->statistics.mean;
  layer.variance = population->statistics.variance;
  for (int64_t counter : {0, 50, 100000}) {
    layer.num_batches = counter;
    EXPECT_EQ(layer.Diagnose(draw.Batch(64, 8, -3, 5)).verdict, Verdict::kHealthy) << counter;
  }
}

// PyTorch forum 18600: momentum 1, [1, 2, 10, 10], 'why are they different': by Bessel's 0.5 %, which is no fault.
TEST(SoundLayers, MomentumOneOnTheSameHundredValues) {
  Draw draw(18600);
  TrainedLayer layer(2);
  layer.average.momentum = 1;
  const ValueBatch batch = draw.Batch(100, 2, 0, 10);
  layer.Train(batch);
  const LayerDiagnosis diagnosis = layer.Diagnose(batch);
  EXPECT_EQ(diagnosis.verdict, Verdict::kHealthy);
  EXPECT_EQ(diagnosis.main_cause, Cause::kBessel);
  EXPECT_NEAR(diagnosis.gap->scale_ratio, std::sqrt(0.99), 1e-6);
}

// Noise measured from a few batches is uncertain itself: sixteen values do not become too few by it.
TEST(SoundLayers, MeasuredNoiseMayVary) {
  int fewer = 0;
  for (uint64_t seed = 0; seed < 40; ++seed) {
    Draw draw(seed);
    TrainedLayer layer(8);
    for (int i = 0; i < 60; ++i) layer.Train(draw.Batch(16, 8, 3, 2));
    const LayerDiagnosis diagnosis = layer.Diagnose(draw.Batch(16, 8, 3, 2), Last(layer, 4));
    EXPECT_EQ(diagnosis.verdict, Verdict::kHealthy) << diagnosis.explanation;
    fewer += diagnosis.independent_values < 16;
  }
  EXPECT_GT(fewer, 0);
}

// Activations after a ReLU are far from normal; the closed noise must bear it.
TEST(SoundLayers, HalfOfTheValuesAreZero) {
  Draw draw(22);
  const auto rectified = [&draw] {
    ValueBatch batch = draw.Batch(128, 32, 0, 1);
    for (auto& channel : batch) {
      for (double& value : channel) value = std::max(0.0, value);
    }
    return batch;
  };
  TrainedLayer layer(32);
  for (int i = 0; i < 300; ++i) layer.Train(rectified());
  for (int i = 0; i < 50; ++i) {
    EXPECT_EQ(layer.Diagnose(rectified(), Last(layer, 12)).verdict, Verdict::kHealthy);
  }
}

// Tails far heavier than a normal's: a sparse ReLU, of which one value in fifteen is not zero; and samples that differ
// in scale. The variance's noise is many times the closed form's, also where values are as many as samples, and is
// measured. A sample's scale, which all channels have in common, makes their noises rise and fall together; the limit
// takes them for independent, so that one in twenty is an alarm.
TEST(SoundLayers, HeavyTails) {
  for (const auto& [scale_spread, most] : {std::pair{0.0, 0}, std::pair{0.3, 2}}) {
    int alarms = 0;
    for (uint64_t seed = 0; seed < 20; ++seed) {
      Draw draw(seed);
      const auto batch = [&] {
        ValueBatch values = draw.Batch(64, 256, 0, 1);
        const ValueBatch scales = draw.Batch(64, 1, 0, scale_spread);
        for (auto& channel : values) {
          for (size_t i = 0; i < channel.size(); ++i) {
            channel[i] = std::max(0.0, std::exp(scales[0][i]) * channel[i] - (scale_spread > 0 ? 0 : 1.5));
          }
        }
        return values;
      };
      TrainedLayer layer(256);
      for (int i = 0; i < 80; ++i) layer.Train(batch());
      const LayerDiagnosis diagnosis = layer.DiagnoseNewest(64);
      alarms += diagnosis.verdict == Verdict::kTrainEvalGap;
    }
    EXPECT_LE(alarms, most) << scale_spread;
  }
}

}  // namespace
}  // namespace normserve
