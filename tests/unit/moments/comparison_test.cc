#include "server/moments/comparison.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/unit/server/status_matchers.h"

namespace normserve {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// One channel of `count` values with this biased variance.
ChannelComparison Compare(int64_t count, double mean, double variance, double reference_mean,
                          double reference_variance) {
  const Moments batch{.count = count, .mean = {mean}, .m2 = {variance * static_cast<double>(count)}};
  return (*CompareChannels(batch, {.mean = {reference_mean}, .variance = {reference_variance}}))[0];
}

void ExpectNoNaN(const ChannelComparison& compared) {
  for (const auto& field : {compared.kl_divergence, compared.wasserstein, compared.mean_z, compared.mean_p,
                            compared.variance_ratio, compared.variance_z, compared.variance_p}) {
    EXPECT_FALSE(std::isnan(field.value_or(0)));
  }
}

TEST(CompareChannels, AnEqualNormalIsAtDistanceZero) {
  const ChannelComparison equal = Compare(100, 3, 4, 3, 4);
  EXPECT_EQ(equal.kl_divergence, 0);
  EXPECT_EQ(equal.wasserstein, 0);
  EXPECT_EQ(equal.mean_z, 0);
  EXPECT_EQ(equal.mean_p, 1);
  EXPECT_DOUBLE_EQ(*equal.variance_ratio, 100.0 / 99);
}

// N(1, 4) against N(0, 1): (4 + 1 - 1 - ln 4) / 2; and the other way round (1/4 + 1/4 - 1 + ln 4) / 2, which is not
// equal.
TEST(CompareChannels, KnownDivergences) {
  EXPECT_DOUBLE_EQ(*Compare(10, 1, 4, 0, 1).kl_divergence, (4 - std::log(4)) / 2);
  EXPECT_DOUBLE_EQ(*Compare(10, 0, 1, 1, 4).kl_divergence, (std::log(4) - 0.5) / 2);
  EXPECT_DOUBLE_EQ(*Compare(10, 0, 1e-8, 0, 1).kl_divergence, (1e-8 - 1 + 8 * std::log(10)) / 2);
}

// For V = (1 + x) v, KL is x^2 / 4 to first order: v/V - 1 - ln(v/V) as it stands would be all rounding.
TEST(CompareChannels, SmallDivergencesKeepTheirDigits) {
  for (double x : {1e-3, 1e-5, 1e-7, 1e-9}) {
    const double ratio = (1 + x) - 1;  // as stored
    EXPECT_NEAR(*Compare(2, 0, 1 + x, 0, 1).kl_divergence / (ratio * ratio / 4), 1, x) << x;
    EXPECT_NEAR(*Compare(2, 0, 1 - x, 0, 1).kl_divergence / (x * x / 4), 1, x + 1e-16 / x) << x;
  }
  // Beyond what the series is for: against logarithms in long double.
  for (double ratio : {0.98, 0.9899, 0.991, 1.0099, 1.011, 1.5}) {
    const long double r = ratio;
    EXPECT_NEAR(*Compare(2, 0, ratio, 0, 1).kl_divergence, static_cast<double>((r - 1 - std::log(r)) / 2), 1e-18);
  }
}

TEST(CompareChannels, WassersteinIsAFlatDistanceOfMeanAndDeviation) {
  EXPECT_DOUBLE_EQ(*Compare(10, 3, 25, 0, 1).wasserstein, 5);  // means 3 apart, deviations 4
  EXPECT_DOUBLE_EQ(*Compare(10, 0, 9, 0, 0).wasserstein, 3);
  EXPECT_DOUBLE_EQ(*Compare(10, 1e200, 0, -1e200, 0).wasserstein, 2e200);  // squares would overflow
}

TEST(CompareChannels, MeanIsMeasuredInStandardErrorsOfTheReference) {
  const ChannelComparison compared = Compare(25, 11, 7, 10, 4);  // 2 / sqrt 25 = 0.4
  EXPECT_DOUBLE_EQ(*compared.mean_z, 2.5);
  EXPECT_NEAR(*compared.mean_p, 0.012419330651552265, 1e-15);
  EXPECT_DOUBLE_EQ(*Compare(25, 9, 7, 10, 4).mean_z, -2.5);
  EXPECT_NEAR(*Compare(25, 9, 7, 10, 4).mean_p, 0.012419330651552265, 1e-15);
}

TEST(CompareChannels, VarianceRatioTakesTheUnbiasedVariance) {
  EXPECT_DOUBLE_EQ(*Compare(5, 0, 8, 0, 4).variance_ratio, 2.5);  // 8 * 5/4 / 4
}

// Chi-squared quantiles: with 30 degrees of freedom 2.5 % lie below 16.791 and 2.5 % above 46.979 (tables).
TEST(CompareChannels, VarianceScoreIsNearlyNormal) {
  const double low = 16.791 / 31, high = 46.979 / 31;
  EXPECT_NEAR(*Compare(31, 0, low, 0, 1).variance_z, -1.96, 0.01);
  EXPECT_NEAR(*Compare(31, 0, low, 0, 1).variance_p, 0.05, 0.001);
  EXPECT_NEAR(*Compare(31, 0, high, 0, 1).variance_z, 1.96, 0.01);
  EXPECT_NEAR(*Compare(31, 0, high, 0, 1).variance_p, 0.05, 0.001);
}

TEST(CompareChannels, AZeroVarianceIsInfinitelyFarOrEqual) {
  const ChannelComparison constant_batch = Compare(10, 0, 0, 0, 1);
  EXPECT_EQ(constant_batch.kl_divergence, kInfinity);
  EXPECT_EQ(constant_batch.variance_ratio, 0);
  EXPECT_EQ(constant_batch.wasserstein, 1);
  const ChannelComparison constant_reference = Compare(10, 0.5, 1, 0, 0);
  EXPECT_EQ(constant_reference.kl_divergence, kInfinity);
  EXPECT_EQ(constant_reference.mean_z, kInfinity);
  EXPECT_EQ(constant_reference.mean_p, 0);
  EXPECT_EQ(constant_reference.variance_ratio, kInfinity);
  EXPECT_EQ(constant_reference.variance_p, 0);
  const ChannelComparison both = Compare(10, 2, 0, 2, 0);
  EXPECT_EQ(both.kl_divergence, 0);
  EXPECT_EQ(both.mean_z, 0);
  EXPECT_EQ(both.variance_ratio, 1);
  EXPECT_EQ(Compare(10, 2, 0, 3, 0).kl_divergence, kInfinity);
  EXPECT_EQ(Compare(10, 2, 0, 3, 0).mean_z, -kInfinity);
}

TEST(CompareChannels, IsNeverNaN) {
  const double values[] = {0, 5e-324, 1e-300, 1, 1e300, 1.7e308, kInfinity, kNaN};
  for (int64_t count : {1, 2, 1000}) {
    for (double mean : values) {
      for (double m2 : values) {
        for (double reference_mean : values) {
          for (double reference_variance : values) {
            const Moments batch{.count = count, .mean = {-mean}, .m2 = {m2}};
            ExpectNoNaN((*CompareChannels(batch, {.mean = {reference_mean}, .variance = {reference_variance}}))[0]);
          }
        }
      }
    }
  }
}

TEST(CompareChannels, WhatABatchCannotTellIsAbsent) {
  const ChannelComparison empty = (*CompareChannels({.count = 0}, {.mean = {0}, .variance = {1}}))[0];
  EXPECT_FALSE(empty.mean_z || empty.mean_p || empty.kl_divergence || empty.wasserstein || empty.variance_ratio);
  const ChannelComparison one = Compare(1, 3, 0, 1, 4);
  EXPECT_EQ(one.mean_z, 1);  // one value, one deviation away
  EXPECT_FALSE(one.kl_divergence || one.wasserstein || one.variance_ratio || one.variance_z || one.variance_p);
  const ChannelComparison lost = Compare(10, kNaN, 1, 0, 1);
  EXPECT_FALSE(lost.mean_z || lost.kl_divergence || lost.wasserstein || lost.variance_ratio);
  EXPECT_FALSE(Compare(10, 0, 1, 0, -1).mean_z.has_value());
}

TEST(CompareChannels, LengthsThatDifferAreRefused) {
  EXPECT_THAT(CompareChannels({.count = 2, .mean = {0, 0}, .m2 = {1, 1}}, {.mean = {0}, .variance = {1}}).status(),
              Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kShapeMismatch));
  EXPECT_THAT(CompareChannels({.count = 2, .mean = {0}, .m2 = {1}}, {.mean = {0}, .variance = {}}).status(),
              Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kShapeMismatch));
  EXPECT_THAT(CompareChannels({.count = -1}, {.mean = {0}, .variance = {1}}).status(),
              Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kInvalidField));
}

// Distances 3 and 4 at V + epsilon = 1 and 4: sqrt((9 + 4) / 2).
TEST(Drift, IsTheRootMeanSquareOfTheDistanceInDeviations) {
  const NormalizationStatistics reference{.mean = {0, 0}, .variance = {0.75, 3.75}};
  std::vector<ChannelComparison> channels(2);
  channels[0].wasserstein = 3;
  channels[1].wasserstein = 4;
  EXPECT_DOUBLE_EQ(*Drift(channels, reference, 0.25), std::sqrt(6.5));
  channels[1].wasserstein = std::nullopt;  // cannot be told
  EXPECT_DOUBLE_EQ(*Drift(channels, reference, 0.25), 3);
  channels[0].wasserstein = 0;
  EXPECT_EQ(Drift(channels, reference, 0.25), 0);
}

TEST(Drift, LeavesOutWhatIsNotFiniteAndDoesNotOverflow) {
  const NormalizationStatistics reference{.mean = {0, 0}, .variance = {0, 1}};
  std::vector<ChannelComparison> channels(2);
  EXPECT_EQ(Drift(channels, reference, 0), std::nullopt);
  channels[0].wasserstein = 1;  // over 0
  EXPECT_EQ(Drift(channels, reference, 0), std::nullopt);
  channels[1].wasserstein = 1e300;
  EXPECT_DOUBLE_EQ(*Drift(channels, reference, 0), 1e300);
  EXPECT_TRUE(std::isfinite(*Drift(channels, reference, 1e-300)));
}

}  // namespace
}  // namespace normserve
