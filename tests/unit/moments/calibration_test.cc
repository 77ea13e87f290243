#include "server/moments/calibration.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <utility>

#include "tests/unit/moments/value_batch.h"
#include "tests/unit/server/status_matchers.h"

namespace normserve {
namespace {

// Batches of these sizes, and all their values.
std::pair<PartSet, ValueBatch> DrawBatches(const std::vector<int64_t>& sizes, uint64_t seed) {
  Draw draw(seed);
  std::pair<PartSet, ValueBatch> drawn{PartSet(2), {}};
  for (size_t i = 0; i < sizes.size(); ++i) {
    const ValueBatch values = draw.Batch(sizes[i], 2, 10 + 0.5 * draw.Normal(), 2);
    EXPECT_TRUE(drawn.first.Add("batch-" + std::to_string(i), MomentsOf(values)).ok());
    drawn.second = Joined(std::move(drawn.second), values);
  }
  return drawn;
}

TEST(EstimatePopulation, PooledIsTheUnbiasedVarianceOfAllValues) {
  const auto [batches, all] = DrawBatches({7, 64, 1, 20}, 1);
  const Moments expected = MomentsOf(all);
  const auto population = EstimatePopulation(batches, CalibrationMethod::kPooled);
  ASSERT_TRUE(population.ok());
  EXPECT_EQ(population->num_batches, 4);
  EXPECT_EQ(population->count, 92);
  for (size_t c = 0; c < 2; ++c) {
    EXPECT_NEAR(population->statistics.mean[c], expected.mean[c], 1e-13);
    EXPECT_NEAR(population->statistics.variance[c], expected.m2[c] / 91, 1e-12);
  }
}

// By the letter of the paper: E[mean], m / (m - 1) * E[biased variance].
TEST(EstimatePopulation, Algorithm2AveragesBatchesOfOneSize) {
  const auto [batches, all] = DrawBatches({8, 8, 8, 8, 8}, 2);
  const auto population = EstimatePopulation(batches, CalibrationMethod::kAlgorithm2);
  ASSERT_TRUE(population.ok());
  EXPECT_EQ(population->num_batches, 5);
  for (size_t c = 0; c < 2; ++c) {
    double mean = 0, variance = 0;
    for (const auto& [id, batch] : batches.parts()) {
      mean += batch.mean[c] / 5;
      variance += batch.BiasedVariance(c) / 5;
    }
    EXPECT_NEAR(population->statistics.mean[c], mean, 1e-13);
    EXPECT_NEAR(population->statistics.variance[c], 8.0 / 7 * variance, 1e-13);
  }
}

TEST(EstimatePopulation, Algorithm2LeavesOutWhatLiesBetweenBatches) {
  PartSet batches(1);
  ASSERT_TRUE(batches.Add("a", {.count = 5, .mean = {-3}, .m2 = {4}}).ok());
  ASSERT_TRUE(batches.Add("b", {.count = 5, .mean = {3}, .m2 = {12}}).ok());
  EXPECT_EQ(EstimatePopulation(batches, CalibrationMethod::kAlgorithm2)->statistics.variance[0], 2);  // (1 + 3) / 2
  EXPECT_DOUBLE_EQ(EstimatePopulation(batches, CalibrationMethod::kPooled)->statistics.variance[0], 106.0 / 9);
}

TEST(EstimatePopulation, Algorithm2RefusesABatchOfAnotherSizeByName) {
  const auto [batches, all] = DrawBatches({8, 8, 5}, 3);
  const absl::Status status = EstimatePopulation(batches, CalibrationMethod::kAlgorithm2).status();
  EXPECT_THAT(status, Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kShapeMismatch));
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("\"batch-2\": count is 5"));
  EXPECT_TRUE(EstimatePopulation(batches, CalibrationMethod::kPooled).ok());
}

TEST(EstimatePopulation, EmptyBatchesDoNotCount) {
  PartSet batches(1);
  ASSERT_TRUE(batches.Add("a", {.count = 2, .mean = {1}, .m2 = {2}}).ok());
  ASSERT_TRUE(batches.Add("idle", {}).ok());
  for (CalibrationMethod method : {CalibrationMethod::kPooled, CalibrationMethod::kAlgorithm2}) {
    const auto population = EstimatePopulation(batches, method);
    EXPECT_EQ(population->num_batches, 1);
    EXPECT_EQ(population->statistics.mean[0], 1);
    EXPECT_EQ(population->statistics.variance[0], 2);
  }
}

TEST(EstimatePopulation, NeedsTwoValues) {
  PartSet batches(1);
  for (CalibrationMethod method : {CalibrationMethod::kPooled, CalibrationMethod::kAlgorithm2}) {
    EXPECT_THAT(EstimatePopulation(batches, method).status(),
                Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kBatchTooSmall));
  }
  ASSERT_TRUE(batches.Add("a", {.count = 1, .mean = {1}, .m2 = {0}}).ok());
  EXPECT_FALSE(EstimatePopulation(batches, CalibrationMethod::kPooled).ok());
  ASSERT_TRUE(batches.Add("b", {.count = 1, .mean = {3}, .m2 = {0}}).ok());
  EXPECT_EQ(EstimatePopulation(batches, CalibrationMethod::kPooled)->statistics.variance[0], 2);
  EXPECT_THAT(EstimatePopulation(batches, CalibrationMethod::kAlgorithm2).status(),
              Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kBatchTooSmall));
}

TEST(EstimatePopulation, BitsDoNotDependOnWhoGatheredWhat) {
  const auto [batches, all] = DrawBatches(std::vector<int64_t>(25, 12), 4);
  Draw draw(8);
  for (CalibrationMethod method : {CalibrationMethod::kPooled, CalibrationMethod::kAlgorithm2}) {
    const auto expected = EstimatePopulation(batches, method);
    for (int trial = 0; trial < 5; ++trial) {
      std::vector<std::pair<std::string, Moments>> arrived(batches.parts().begin(), batches.parts().end());
      draw.Shuffle(arrived);
      std::vector<PartSet> workers(3, PartSet(2));
      for (const auto& [id, moments] : arrived) {
        ASSERT_TRUE(workers[static_cast<size_t>(draw.Between(0, 2))].Add(id, moments).ok());
      }
      ASSERT_TRUE(workers[2].Merge(workers[0]).ok());
      ASSERT_TRUE(workers[2].Merge(workers[1]).ok());
      const auto population = EstimatePopulation(workers[2], method);
      EXPECT_EQ(population->statistics.mean, expected->statistics.mean);
      EXPECT_EQ(population->statistics.variance, expected->statistics.variance);
    }
  }
}

}  // namespace
}  // namespace normserve
