#include "server/moments/channel_flags.h"

#include <gtest/gtest.h>

#include <limits>

#include "tests/unit/server/status_matchers.h"

namespace normserve {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// A sound layer, whose vectors a test then spoils.
struct Layer {
  std::vector<double> mean, variance;
  std::vector<float> weight, bias;
  int64_t num_batches = 100;
  Moments batch;

  explicit Layer(size_t num_features)
      : mean(num_features, 0.5),
        variance(num_features, 2),
        weight(num_features, 1),
        bias(num_features, 0),
        batch{.count = 64,
              .mean = std::vector<double>(num_features, 0.4),
              .m2 = std::vector<double>(num_features, 2 * 64)} {}

  LayerStatistics Statistics() const {
    return {.running_mean = mean,
            .running_variance = variance,
            .num_batches_tracked = num_batches,
            .weight = weight,
            .bias = bias};
  }
  std::vector<ChannelFlags> Flags() const { return FlagChannels(Statistics(), batch, mean.size()); }
  bool Has(size_t channel, ChannelFlag flag) const { return Flags()[channel].Has(flag); }
};

TEST(FlagChannels, ASoundLayerHasNone) {
  for (const ChannelFlags& flags : Layer(4).Flags()) EXPECT_FALSE(flags.Any());
}

// 1e-3 * epsilon leaves an output whose deviation is sqrt(1 / 1001), 3 % of weight.
TEST(FlagChannels, DeadNeedsEveryKnownVarianceToVanishBesideEpsilon) {
  Layer layer(3);
  layer.variance[1] = 1e-8;
  layer.batch.m2[1] = 1e-8 * 64;
  EXPECT_TRUE(layer.Has(1, ChannelFlag::kDead));
  EXPECT_FALSE(layer.Has(1, ChannelFlag::kConstant));
  EXPECT_FALSE(layer.Has(0, ChannelFlag::kDead));
  layer.batch.m2[1] = 1.1e-8 * 64;
  EXPECT_FALSE(layer.Has(1, ChannelFlag::kDead));  // the batch is alive
  layer.batch = {};
  EXPECT_TRUE(layer.Has(1, ChannelFlag::kDead));  // no evidence to the contrary
  layer.variance[1] = 1.1e-8;
  EXPECT_FALSE(layer.Has(1, ChannelFlag::kDead));
}

TEST(FlagChannels, AnUntrainedVarianceSaysNothingAboutDeath) {
  Layer layer(1);
  layer.mean[0] = 0;
  layer.variance[0] = 1;
  layer.num_batches = 0;
  layer.batch.m2[0] = 0;
  EXPECT_TRUE(layer.Has(0, ChannelFlag::kDead));
  layer.num_batches = 1;
  EXPECT_FALSE(layer.Has(0, ChannelFlag::kDead));
  EXPECT_TRUE(layer.Has(0, ChannelFlag::kConstant));
}

TEST(FlagChannels, ConstantNeedsTwoEqualValues) {
  Layer layer(1);
  layer.batch = {.count = 1, .mean = {3}, .m2 = {0}};
  EXPECT_FALSE(layer.Has(0, ChannelFlag::kConstant));
  EXPECT_FALSE(layer.Has(0, ChannelFlag::kDead));
  layer.batch.count = 2;
  EXPECT_TRUE(layer.Has(0, ChannelFlag::kConstant));
}

TEST(FlagChannels, ExplodingByItself) {
  Layer layer(1);
  layer.variance[0] = 1e12;
  EXPECT_FALSE(layer.Has(0, ChannelFlag::kExplodingAbsolute));
  layer.variance[0] = 1.01e12;
  EXPECT_TRUE(layer.Has(0, ChannelFlag::kExplodingAbsolute));
  EXPECT_FALSE(layer.Has(0, ChannelFlag::kExplodingRelative));  // it is the median itself
  layer.variance[0] = 1;
  layer.batch.m2[0] = 1.01e12 * 64;
  EXPECT_TRUE(layer.Has(0, ChannelFlag::kExplodingAbsolute));
}

TEST(FlagChannels, ExplodingBesideTheOthersThatLive) {
  Layer layer(7);
  layer.variance = {0, 0, 0, 0, 1, 2, 1.9e6};  // median of those above 0: 2
  EXPECT_FALSE(layer.Has(6, ChannelFlag::kExplodingRelative));
  layer.variance[6] = 2.1e6;
  EXPECT_TRUE(layer.Has(6, ChannelFlag::kExplodingRelative));
  EXPECT_FALSE(layer.Has(6, ChannelFlag::kExplodingAbsolute));
  EXPECT_FALSE(layer.Has(5, ChannelFlag::kExplodingRelative));
  layer.variance[6] = 1;
  layer.batch.m2 = {64, 64, 64, 64, 64, 64, 2e6 * 64};
  EXPECT_TRUE(layer.Has(6, ChannelFlag::kExplodingRelative));
}

TEST(FlagChannels, NonFiniteWhereverItIs) {
  for (double bad : {kInfinity, -kInfinity, kNaN}) {
    Layer layer(2);
    layer.mean[1] = bad;
    EXPECT_TRUE(layer.Has(1, ChannelFlag::kNonFinite));
    EXPECT_FALSE(layer.Has(0, ChannelFlag::kNonFinite));
    layer = Layer(2), layer.variance[1] = bad;
    EXPECT_TRUE(layer.Has(1, ChannelFlag::kNonFinite));
    layer = Layer(2), layer.weight[1] = static_cast<float>(bad);
    EXPECT_TRUE(layer.Has(1, ChannelFlag::kNonFinite));
    layer = Layer(2), layer.bias[1] = static_cast<float>(bad);
    EXPECT_TRUE(layer.Has(1, ChannelFlag::kNonFinite));
    layer = Layer(2), layer.batch.mean[1] = bad;
    EXPECT_TRUE(layer.Has(1, ChannelFlag::kNonFinite));
    layer = Layer(2), layer.batch.m2[1] = bad;
    EXPECT_TRUE(layer.Has(1, ChannelFlag::kNonFinite));
  }
  Layer layer(1);
  layer.variance[0] = -1e-9;  // its root is NaN where epsilon is smaller
  EXPECT_TRUE(layer.Has(0, ChannelFlag::kNonFinite));
  layer.batch = {};
  EXPECT_FALSE(layer.Has(0, ChannelFlag::kDead));
}

TEST(FlagChannels, NeverUpdatedUnlessStatisticsWereLoaded) {
  Layer layer(2);
  layer.num_batches = 0;
  layer.mean = {0, 0.1};
  layer.variance = {1, 1};
  EXPECT_TRUE(layer.Has(0, ChannelFlag::kNeverUpdated));
  EXPECT_FALSE(layer.Has(1, ChannelFlag::kNeverUpdated));
  const std::vector<double> initial_mean = {5, 0.1}, initial_variance = {1, 1};
  LayerStatistics statistics = layer.Statistics();
  statistics.initial_mean = initial_mean;
  statistics.initial_variance = initial_variance;
  EXPECT_FALSE(FlagChannels(statistics, layer.batch, 2)[0].Has(ChannelFlag::kNeverUpdated));
  EXPECT_TRUE(FlagChannels(statistics, layer.batch, 2)[1].Has(ChannelFlag::kNeverUpdated));
  layer.num_batches = 1;
  EXPECT_FALSE(layer.Has(0, ChannelFlag::kNeverUpdated));
}

TEST(FlagChannels, FrozenAffineIsAWeightOfZero) {
  Layer layer(2);
  layer.weight[1] = 0;
  EXPECT_FALSE(layer.Has(0, ChannelFlag::kFrozenAffine));
  EXPECT_TRUE(layer.Has(1, ChannelFlag::kFrozenAffine));
}

TEST(FlagChannels, SmallBatches) {
  Layer layer(1);
  for (int64_t count : {0, 1, 2, 15, 16}) {
    layer.batch.count = count;
    if (count == 1) layer.batch.m2 = {0};
    if (count == 2) layer.batch.m2 = {1};
    EXPECT_EQ(layer.Has(0, ChannelFlag::kBatchTooSmall), count == 1) << count;
    EXPECT_EQ(layer.Has(0, ChannelFlag::kNoisyBatch), count == 2 || count == 15) << count;
  }
}

TEST(QuantilesOf, InterpolatesLinearlyAndLeavesOutWhatIsNotFinite) {
  std::vector<double> values;
  for (int i = 20; i >= 0; --i) values.push_back(i);
  values.insert(values.end(), {kNaN, kInfinity, -kInfinity});
  EXPECT_EQ(QuantilesOf(values), (Quantiles{0, 1, 10, 19, 20}));
  // numpy.quantile([1, 2, 4, 8], [0, .05, .5, .95, 1])
  const Quantiles four = *QuantilesOf({8, 1, 4, 2});
  EXPECT_DOUBLE_EQ(four.low, 1.15);
  EXPECT_DOUBLE_EQ(four.median, 3);
  EXPECT_DOUBLE_EQ(four.high, 7.4);
  EXPECT_EQ(QuantilesOf({7}), (Quantiles{7, 7, 7, 7, 7}));
  EXPECT_EQ(QuantilesOf({kNaN}), std::nullopt);
  EXPECT_EQ(QuantilesOf({-1.7e308, 1.7e308})->median, 0);
}

TEST(Summarize, CountsFlagsAndTakesTheBiasedBatchVariance) {
  Layer layer(3);
  layer.mean = {1, 2, 9};
  layer.weight = {0, 0, 1};
  layer.batch.m2 = {64, 128, 0};
  const LayerSummary summary = Summarize(layer.Statistics(), layer.batch, layer.Flags());
  EXPECT_EQ(summary.running_mean->median, 2);
  EXPECT_EQ(summary.running_variance->max, 2);
  EXPECT_EQ(summary.batch_mean->min, 0.4);
  EXPECT_EQ(summary.batch_variance->median, 1);
  EXPECT_EQ(summary.NumFlagged(ChannelFlag::kFrozenAffine), 2);
  EXPECT_EQ(summary.NumFlagged(ChannelFlag::kConstant), 1);
  EXPECT_EQ(summary.NumFlagged(ChannelFlag::kDead), 0);
  const LayerSummary without = Summarize({}, {}, {});
  EXPECT_FALSE(without.running_mean || without.running_variance || without.batch_mean || without.batch_variance);
}

TEST(CheckLayer, NamesTheVectorOfAnotherLength) {
  Layer layer(2);
  EXPECT_TRUE(CheckLayer(layer.Statistics(), layer.batch, 2).ok());
  EXPECT_TRUE(CheckLayer({}, {}, 2).ok());
  layer.weight.pop_back();
  const absl::Status status = CheckLayer(layer.Statistics(), layer.batch, 2);
  EXPECT_THAT(status, Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kShapeMismatch));
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("weight has 1 values, the layer has 2 channels"));
  layer.weight.clear();
  layer.variance.clear();
  EXPECT_FALSE(CheckLayer(layer.Statistics(), layer.batch, 2).ok());
  layer = Layer(2);
  layer.batch.mean.clear();
  EXPECT_FALSE(CheckLayer(layer.Statistics(), layer.batch, 2).ok());
  layer.batch = {.count = -3};
  EXPECT_THAT(CheckLayer(layer.Statistics(), layer.batch, 2),
              Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kInvalidField));
  for (double epsilon : {-1.0, kNaN, kInfinity}) {
    EXPECT_THAT(CheckLayer({.epsilon = epsilon}, {}, 2),
                Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kInvalidField));
  }
}

TEST(ChannelFlagName, IsTheEnumeratorInCapitals) {
  EXPECT_EQ(ChannelFlagName(ChannelFlag::kDead), "DEAD");
  EXPECT_EQ(ChannelFlagName(ChannelFlag::kExplodingRelative), "EXPLODING_RELATIVE");
  EXPECT_EQ(ChannelFlagName(ChannelFlag::kNoisyBatch), "NOISY_BATCH");
}

}  // namespace
}  // namespace normserve
