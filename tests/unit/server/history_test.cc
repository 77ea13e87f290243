// What a session remembers of its batches: which, how many, and in how much room.
#include "server/session/history.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

namespace normserve {
namespace {

using ::testing::ElementsAre;
using ::testing::Optional;

std::shared_ptr<const Moments> BatchOf(int64_t value) {
  const auto mean = static_cast<double>(value);
  return std::make_shared<const Moments>(Moments{.count = 4, .mean = {mean, mean + 1}, .m2 = {4, 8}, .num_samples = 2});
}

SessionState StateOf(int64_t generation, double running_mean = 0) {
  SessionState state{.config = {.num_features = 2},
                     .num_batches_tracked = generation,
                     .generation = generation,
                     .update_time = absl::UnixEpoch() + absl::Seconds(generation)};
  state.parameters = std::make_shared<const AffineParameters>(AffineParameters{.weight = {1, 1}, .bias = {0, 0}});
  state.running = std::make_shared<const NormalizationStatistics>(
      NormalizationStatistics{.mean = {running_mean, running_mean + 1}, .variance = {1, 2}});
  return state;
}

// After `num_updates` batches, of which the mean is the number.
std::shared_ptr<const History> HistoryOf(int64_t num_updates) {
  std::shared_ptr<const History> history;
  for (int64_t i = 1; i <= num_updates; ++i) history = WithBatch(history.get(), StateOf(i), BatchOf(i));
  return history;
}

std::vector<int64_t> UpdatesOf(const std::vector<HistoryPoint>& points) {
  std::vector<int64_t> updates;
  for (const HistoryPoint& point : points) updates.push_back(point.update);
  return updates;
}

TEST(History, TheNewestBatchesAreWholeAndOldestFirst) {
  EXPECT_TRUE(RecentBatches(nullptr).empty());
  std::vector<double> means;
  for (const auto& batch : RecentBatches(HistoryOf(3).get())) means.push_back(batch->mean[0]);
  EXPECT_THAT(means, ElementsAre(1, 2, 3));
  means.clear();
  for (const auto& batch : RecentBatches(HistoryOf(21).get())) means.push_back(batch->mean[0]);
  EXPECT_THAT(means, ElementsAre(14, 15, 16, 17, 18, 19, 20, 21));
}

TEST(History, TheOlderTheSparser) {
  EXPECT_THAT(UpdatesOf(PointsOf(HistoryOf(3).get(), StateOf(3))), ElementsAre(1, 2, 3));
  EXPECT_THAT(UpdatesOf(PointsOf(HistoryOf(200).get(), StateOf(200))),
              ElementsAre(1, 2, 4, 32, 64, 80, 96, 112, 128, 144, 152, 160, 168, 176, 184, 192, 193, 194, 195, 196, 197,
                          198, 199, 200));
}

TEST(History, ItNeverGrowsAndReachesFarBack) {
  const auto history = HistoryOf(300'000);
  const auto points = PointsOf(history.get(), StateOf(300'000));
  EXPECT_LE(points.size(), kHistorySlots);
  EXPECT_GE(points.size(), 50u);
  const std::vector<int64_t> updates = UpdatesOf(points);
  EXPECT_EQ(updates[0], 1);
  EXPECT_EQ(updates[3], 29 << 13);  // of the odd multiples of 2^13 the fourth from the end
  EXPECT_TRUE(std::is_sorted(updates.begin(), updates.end()));
  for (size_t slot = 0; slot < kHistorySlots; ++slot) {
    const auto& point = history->slots[slot];
    EXPECT_TRUE(point == nullptr || Belongs(*point, slot, 300'000)) << slot;
  }
}

TEST(History, ABatchIsOnePointWithItsNumbersAndThoseOfTheLayer) {
  auto history = HistoryOf(7);
  history = WithBatch(history.get(), StateOf(8, 5), BatchOf(9));
  for (int64_t i = 9; i <= 30; ++i) history = WithBatch(history.get(), StateOf(i), BatchOf(i));
  const auto points = PointsOf(history.get(), StateOf(30));
  const HistoryPoint& eighth = points[3];
  EXPECT_EQ(eighth.update, 8);
  EXPECT_EQ(eighth.generation, 8);
  EXPECT_EQ(eighth.num_batches_tracked, 8);
  EXPECT_EQ(eighth.time, absl::UnixEpoch() + absl::Seconds(8));
  EXPECT_EQ(eighth.count, 4);
  EXPECT_EQ(eighth.num_samples, 2);
  EXPECT_EQ(eighth.batch, nullptr);
  ASSERT_NE(eighth.summary, nullptr);
  EXPECT_EQ(eighth.summary->running_mean->median, 5.5);
  EXPECT_EQ(eighth.summary->running_variance->max, 2);
  EXPECT_EQ(eighth.summary->batch_mean->min, 9);
  EXPECT_EQ(eighth.summary->batch_variance->max, 2);  // 8 / 4
  // Four off a mean, at deviations of 1 and sqrt(2): sqrt((16 + 16 / 2) / 2).
  EXPECT_THAT(eighth.summary->relative_gap, Optional(::testing::DoubleNear(3.4641, 1e-4)));
}

TEST(History, TheNewestPointHasTheRunningStatisticsThatAreThereNow) {
  const auto history = HistoryOf(11);
  const auto points = PointsOf(history.get(), StateOf(11, 3));
  EXPECT_EQ(points.back().summary->running_mean->min, 3);
  EXPECT_TRUE(points.back().summary->relative_gap.has_value());
  EXPECT_FALSE(points[points.size() - 2].summary->running_mean.has_value());
  EXPECT_EQ(points[points.size() - 2].summary->batch_mean->min, 10);
}

TEST(History, AReplacementIsAPointWithoutABatch) {
  auto history = HistoryOf(3);
  SessionState replaced = StateOf(4, 7);
  replaced.lineage = 1;
  history = WithReplacement(history.get(), replaced);
  EXPECT_EQ(history->num_updates, 3);
  const auto points = PointsOf(history.get(), replaced);
  ASSERT_EQ(points.size(), 4u);
  EXPECT_EQ(points[3].count, 0);
  EXPECT_EQ(points[3].update, 3);
  EXPECT_EQ(points[3].summary->running_mean->min, 7);
  EXPECT_FALSE(points[3].summary->batch_mean.has_value());
  // The batch before it is not what these statistics were made of.
  EXPECT_FALSE(points[2].summary->running_mean.has_value());
  EXPECT_EQ(RecentBatches(history.get()).size(), 3u);
}

TEST(History, APointInAnotherSlotOrFromElsewhenDoesNotBelong) {
  const auto history = HistoryOf(20);
  const HistoryPoint& newest = *history->slots[RecentSlot(20)];
  EXPECT_TRUE(Belongs(newest, RecentSlot(20), 20));
  EXPECT_FALSE(Belongs(newest, RecentSlot(19), 20));
  EXPECT_FALSE(Belongs(newest, RecentSlot(20), 19));
  EXPECT_FALSE(Belongs(newest, RecentSlot(20), 28));
  const HistoryPoint& thinned = *history->slots[*ThinnedSlot(16)];
  EXPECT_TRUE(Belongs(thinned, *ThinnedSlot(16), 1000));
  EXPECT_FALSE(Belongs(thinned, *ThinnedSlot(8), 1000));
  HistoryPoint nonsense = thinned;
  nonsense.update = -16;
  EXPECT_FALSE(Belongs(nonsense, *ThinnedSlot(16), 1000));
}

TEST(History, SlotsAreDistinctWhateverIsKeptTogether) {
  std::set<size_t> slots;
  for (int64_t update : {1, 2, 4}) slots.insert(*ThinnedSlot(update));
  for (int power = 3; power < 14; ++power) {
    for (int64_t odd : {1, 3, 5, 7}) slots.insert(*ThinnedSlot(odd << power));
  }
  for (int64_t multiple : {1, 2, 3, 4}) slots.insert(*ThinnedSlot(multiple << 14));
  EXPECT_EQ(slots.size(), 3u + 12 * 4);
  EXPECT_GE(*slots.begin(), static_cast<size_t>(kRecentBatches));
  EXPECT_LT(*slots.rbegin(), kHistorySlots - 4);
  for (int64_t update : {3, 5, 6, 7, 9, 12, 20, 1001}) EXPECT_EQ(ThinnedSlot(update), std::nullopt) << update;
}

}  // namespace
}  // namespace normserve
