#include "server/moments/merge.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <utility>

#include "server/moments/double_double.h"
#include "tests/unit/moments/value_batch.h"
#include "tests/unit/server/status_matchers.h"

namespace normserve {
namespace {

using NamedParts = std::vector<std::pair<std::string, Moments>>;

PartSet SetOf(size_t num_features, const NamedParts& parts) {
  PartSet set(num_features);
  for (const auto& [id, moments] : parts) EXPECT_TRUE(set.Add(id, moments).ok()) << id;
  return set;
}

// `num_parts` parts of uneven size around `mean`, and all their values.
std::pair<NamedParts, ValueBatch> DrawParts(int num_parts, double mean, double deviation, uint64_t seed) {
  Draw draw(seed);
  NamedParts parts;
  ValueBatch all;
  for (int i = 0; i < num_parts; ++i) {
    const ValueBatch values =
        draw.Batch(draw.Between(1, 200), 3, mean + deviation * draw.Normal(), deviation * (0.1 + draw.Uniform()));
    parts.emplace_back("part-" + std::to_string(i), MomentsOf(values));
    all = Joined(std::move(all), values);
  }
  return {std::move(parts), std::move(all)};
}

TEST(DoubleDouble, KeepsWhatADoubleDrops) {
  for (const DoubleDouble sum : {TwoSum(1e16, 1.5), TwoSum(1.5, 1e16)}) {
    EXPECT_EQ(sum.hi, 1e16 + 1.5);
    EXPECT_EQ(sum.hi - 1e16 + sum.lo, 1.5);
  }
  const DoubleDouble product = TwoProduct(1 + 0x1p-30, 1 - 0x1p-30);
  EXPECT_EQ(product.hi, 1);
  EXPECT_EQ(product.lo, -0x1p-60);
  const DoubleDouble third = DoubleDouble{1, 0} / DoubleDouble{3, 0};
  const DoubleDouble rest = third * DoubleDouble{3, 0} - DoubleDouble{1, 0};
  EXPECT_LT(std::abs(rest.hi), 1e-31);
  EXPECT_GT(std::abs(third.lo), 1e-18);
  const DoubleDouble back = (DoubleDouble{1, 0} + DoubleDouble{0x1p-80, 0}) - DoubleDouble{1, 0};
  EXPECT_EQ(back.hi, 0x1p-80);
}

TEST(MergeParts, EqualsAllValuesPooled) {
  for (int num_parts : {2, 3, 7, 16, 64}) {
    for (double mean : {0.0, 5.0, 1e6, -1e9}) {
      const auto [parts, all] = DrawParts(num_parts, mean, 1, static_cast<uint64_t>(num_parts));
      const Moments expected = MomentsOf(all);
      const auto merged = MergeParts(SetOf(3, parts));
      ASSERT_TRUE(merged.ok());
      EXPECT_EQ(merged->moments.count, expected.count);
      EXPECT_EQ(merged->num_parts, num_parts);
      for (size_t c = 0; c < 3; ++c) {
        EXPECT_NEAR(merged->moments.mean[c], expected.mean[c], 1e-12 * (std::abs(mean) + 1))
            << num_parts << " " << mean;
        // The parts' means are doubles themselves: at |mean| / deviation = r they carry an error of r * 1e-16.
        EXPECT_NEAR(merged->moments.m2[c] / expected.m2[c], 1, 1e-12 + 1e-15 * std::abs(mean))
            << num_parts << " " << mean;
        EXPECT_NEAR((merged->within[c] + merged->between[c]) / merged->moments.BiasedVariance(c), 1, 1e-12);
      }
    }
  }
}

// Two parts of which sums in plain double would keep nothing: means a hair apart, far from zero.
TEST(MergeParts, FarFromZeroNoDigitIsLost) {
  const double step = 0x1p-20;
  const auto merged = MergeParts(SetOf(
      1, {{"a", {.count = 3, .mean = {0x1p30}, .m2 = {0}}}, {"b", {.count = 5, .mean = {0x1p30 + step}, .m2 = {0}}}}));
  EXPECT_EQ(merged->moments.mean[0], 0x1p30 + step * 5 / 8);
  EXPECT_EQ(merged->moments.m2[0], step * step * 3 * 5 / 8);
}

TEST(MergeParts, WhatCancelsLeavesTheRest) {
  const auto merged = MergeParts(SetOf(1, {{"a", {.count = 1, .mean = {-0x1p60}, .m2 = {0}}},
                                           {"b", {.count = 1, .mean = {3}, .m2 = {0}}},
                                           {"c", {.count = 1, .mean = {0x1p60}, .m2 = {0}}}}));
  EXPECT_EQ(merged->moments.mean[0], 1);
}

TEST(MergeParts, BitsDoNotDependOnTheOrderOfArrival) {
  auto [parts, all] = DrawParts(40, 3, 10, 99);
  const auto first = MergeParts(SetOf(3, parts));
  Draw draw(5);
  for (int i = 0; i < 20; ++i) {
    draw.Shuffle(parts);
    const auto merged = MergeParts(SetOf(3, parts));
    EXPECT_EQ(merged->moments.mean, first->moments.mean);
    EXPECT_EQ(merged->moments.m2, first->moments.m2);
    EXPECT_EQ(merged->within, first->within);
    EXPECT_EQ(merged->between, first->between);
  }
}

TEST(MergeParts, BitsDoNotDependOnWhoGatheredWhat) {
  const auto [parts, all] = DrawParts(30, 3, 10, 7);
  const auto first = MergeParts(SetOf(3, parts));
  Draw draw(6);
  for (int i = 0; i < 10; ++i) {
    std::vector<PartSet> workers(4, PartSet(3));
    for (const auto& [id, moments] : parts) {
      ASSERT_TRUE(workers[static_cast<size_t>(draw.Between(0, 3))].Add(id, moments).ok());
    }
    draw.Shuffle(workers);
    for (size_t w = 1; w < workers.size(); ++w) ASSERT_TRUE(workers[0].Merge(workers[w]).ok());
    EXPECT_EQ(MergeParts(workers[0])->moments.m2, first->moments.m2);
    EXPECT_EQ(MergeParts(workers[0])->moments.mean, first->moments.mean);
  }
}

TEST(MergeParts, APartAloneComesBackAsItIs) {
  const Moments part{.count = 7, .mean = {0.1, -1e-300, 3e100}, .m2 = {0, 0.3, 1e200}};
  const auto merged = MergeParts(SetOf(3, {{"a", part}, {"empty", {}}}));
  EXPECT_EQ(merged->moments.count, 7);
  EXPECT_EQ(merged->moments.mean, part.mean);
  EXPECT_EQ(merged->moments.m2, part.m2);
  EXPECT_EQ(merged->num_parts, 1);
}

// A constant channel stays one, to the bit: a mean computed anew would be 0.1 plus a rounding, and its variance not 0.
TEST(MergeParts, EqualConstantsKeepVarianceZero) {
  const auto merged = MergeParts(SetOf(1, {{"a", {.count = 3, .mean = {0.1}, .m2 = {0}}},
                                           {"b", {.count = 7, .mean = {0.1}, .m2 = {0}}},
                                           {"c", {.count = 11, .mean = {0.1}, .m2 = {0}}}}));
  EXPECT_EQ(merged->moments.mean[0], 0.1);
  EXPECT_EQ(merged->moments.m2[0], 0);
}

// The case of design.md: sites at -1 and +1 with variance 1.
TEST(MergeParts, WeightedDropsTheVarianceBetweenParts) {
  const PartSet parts =
      SetOf(1, {{"left", {.count = 10, .mean = {-1}, .m2 = {10}}}, {"right", {.count = 10, .mean = {1}, .m2 = {10}}}});
  EXPECT_EQ(MergeParts(parts)->moments.BiasedVariance(0), 2);
  const auto weighted = MergeParts(parts, MergePolicy::kWeighted);
  EXPECT_EQ(weighted->moments.BiasedVariance(0), 1);
  EXPECT_EQ(weighted->moments.mean[0], 0);
  EXPECT_EQ(weighted->within[0], 1);
  EXPECT_EQ(weighted->between[0], 1);
}

TEST(MergeParts, WeightedWeighsByCount) {
  const auto weighted = MergeParts(
      SetOf(1, {{"a", {.count = 30, .mean = {0}, .m2 = {30}}}, {"b", {.count = 10, .mean = {4}, .m2 = {90}}}}),
      MergePolicy::kWeighted);
  EXPECT_EQ(weighted->moments.mean[0], 1);
  EXPECT_EQ(weighted->moments.BiasedVariance(0), 3);  // (30 * 1 + 10 * 9) / 40
}

TEST(MergeParts, KeepLocalMergesNothingButCompares) {
  const auto local = MergeParts(
      SetOf(1, {{"a", {.count = 10, .mean = {-1}, .m2 = {10}}}, {"b", {.count = 10, .mean = {1}, .m2 = {10}}}}),
      MergePolicy::kKeepLocal);
  EXPECT_EQ(local->moments.count, 0);
  EXPECT_TRUE(local->moments.mean.empty());
  EXPECT_TRUE(local->moments.m2.empty());
  EXPECT_EQ(local->within[0], 1);
  EXPECT_EQ(local->between[0], 1);
  EXPECT_EQ(local->num_parts, 2);
}

TEST(MergeParts, NoValuesMakeNoMoments) {
  for (MergePolicy policy : {MergePolicy::kExact, MergePolicy::kWeighted, MergePolicy::kKeepLocal}) {
    const auto merged = MergeParts(SetOf(2, {{"idle", {}}}), policy);
    EXPECT_EQ(merged->moments.count, 0);
    EXPECT_TRUE(merged->moments.mean.empty());
    EXPECT_TRUE(merged->within.empty());
    EXPECT_EQ(merged->num_parts, 0);
  }
}

TEST(MergeParts, ASumBeyondDoubleNamesItsChannel) {
  const absl::Status status = MergeParts(SetOf(2, {{"a", {.count = 2, .mean = {0, 1e200}, .m2 = {0, 0}}},
                                                   {"b", {.count = 2, .mean = {0, -1e200}, .m2 = {0, 0}}}}))
                                  .status();
  EXPECT_THAT(status, Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kNonFinite));
  EXPECT_EQ(GetErrorDetails(status)->metadata["channel"], "1");
}

}  // namespace
}  // namespace normserve
