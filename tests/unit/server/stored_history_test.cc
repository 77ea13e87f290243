// Observations of stored sessions: what comes back, and what no change of the state takes along.
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "tests/unit/server/stored_session_fixture.h"

namespace normserve {
namespace {

void ExpectSameHistory(const SessionContent& actual, const SessionContent& expected) {
  ASSERT_NE(actual.observations.history, nullptr);
  ASSERT_NE(expected.observations.history, nullptr);
  EXPECT_EQ(actual.observations.history->num_updates, expected.observations.history->num_updates);
  const auto points = PointsOf(actual.observations.history.get(), *actual.state);
  const auto others = PointsOf(expected.observations.history.get(), *expected.state);
  ASSERT_EQ(points.size(), others.size());
  for (size_t i = 0; i < points.size(); ++i) {
    SCOPED_TRACE(i);
    EXPECT_EQ(points[i].update, others[i].update);
    EXPECT_EQ(points[i].generation, others[i].generation);
    EXPECT_EQ(points[i].lineage, others[i].lineage);
    EXPECT_EQ(points[i].num_batches_tracked, others[i].num_batches_tracked);
    EXPECT_EQ(points[i].time, others[i].time);
    EXPECT_EQ(points[i].count, others[i].count);
    EXPECT_EQ(points[i].num_samples, others[i].num_samples);
    ASSERT_EQ(points[i].batch == nullptr, others[i].batch == nullptr);
    if (points[i].batch != nullptr) {
      EXPECT_EQ(points[i].batch->count, others[i].batch->count);
      EXPECT_EQ(points[i].batch->mean, others[i].batch->mean);
      EXPECT_EQ(points[i].batch->m2, others[i].batch->m2);
      EXPECT_EQ(points[i].batch->num_samples, others[i].batch->num_samples);
    }
    ASSERT_TRUE(points[i].summary != nullptr && others[i].summary != nullptr);
    EXPECT_EQ(points[i].summary->running_mean, others[i].summary->running_mean);
    EXPECT_EQ(points[i].summary->running_variance, others[i].summary->running_variance);
    EXPECT_EQ(points[i].summary->batch_mean, others[i].summary->batch_mean);
    EXPECT_EQ(points[i].summary->batch_variance, others[i].summary->batch_variance);
    EXPECT_EQ(points[i].summary->relative_gap, others[i].summary->relative_gap);
  }
}

TEST_F(StoredSessionTest, TheLastBatchAndTheHistoryComeBack) {
  for (const int num_batches : {1, 3, 8, 9, 40}) {
    const std::string name = absl::StrCat("of", num_batches);
    for (int i = 1; i <= num_batches; ++i) ASSERT_TRUE(Train(i == 1 ? *Open(name) : *Get(name), i).ok());
    ASSERT_TRUE(TakeSnapshot(*Get(name), {}, "s").ok());
    ASSERT_TRUE(RestoreSnapshot(*Get(name), {}, "s").ok());
    const SessionContent before = Get(name)->Observe();
    Restart();
    const SessionContent after = Get(name)->Observe();
    ExpectSameHistory(after, before);
    ASSERT_NE(after.observations.last_batch, nullptr);
    EXPECT_EQ(after.observations.last_batch->mean, SomeMoments(num_batches).mean);
    EXPECT_EQ(after.observations.last_batch->num_samples, SomeMoments(num_batches).num_samples);
    // And it goes on from there.
    ASSERT_TRUE(Train(*Get(name), 100).ok());
    EXPECT_EQ(Get(name)->Observe().observations.history->num_updates, num_batches + 1);
  }
}

TEST_F(StoredSessionTest, ABatchThatTheStoreRefusedIsNotInTheHistory) {
  const auto session = Open("a");
  ASSERT_TRUE(Train(*session, 1).ok());
  held_->Hold();
  Promise<ForwardAnswer> refused;
  session->CommitForward({}, {}, {.snapshot = session->Snapshot(), .moments = SomeMoments(2)}, refused.Callback());
  held_->RefuseOne();
  EXPECT_FALSE((*refused).ok());
  held_->PassAll();
  ASSERT_TRUE(Train(*session, 3).ok());
  const SessionContent before = session->Observe();
  EXPECT_EQ(before.observations.history->num_updates, 2);
  Restart();
  ExpectSameHistory(Get("a")->Observe(), before);
}

TEST_F(StoredSessionTest, ObservationsStayThroughARestoreAndAreNotCloned) {
  const auto session = Open("a");
  ASSERT_TRUE(Train(*session, 1).ok());
  ASSERT_TRUE(TakeSnapshot(*session, {}, "s").ok());
  ASSERT_TRUE(Train(*session, 2).ok());
  ASSERT_TRUE(RestoreSnapshot(*session, {}, "s").ok());
  const SessionContent restored = session->Observe();
  EXPECT_EQ(restored.state->num_batches_tracked, 1);
  EXPECT_EQ(restored.observations.last_batch->mean, SomeMoments(2).mean);
  EXPECT_EQ(restored.observations.history->num_updates, 2);
  const auto points = PointsOf(restored.observations.history.get(), *restored.state);
  ASSERT_EQ(points.size(), 3u);
  EXPECT_EQ(points[2].count, 0);
  EXPECT_EQ(points[2].num_batches_tracked, 1);
  ASSERT_TRUE(Clone(*registry_, "a", {}, "b").ok());
  EXPECT_EQ(Get("b")->Observe().observations.history, nullptr);
  EXPECT_EQ(Get("b")->Observe().observations.last_batch, nullptr);
  Restart();
  EXPECT_EQ(Get("b")->Observe().observations.history, nullptr);
}

TEST_F(StoredSessionTest, ADeletedSessionsHistoryIsNotTheNextOnes) {
  ASSERT_TRUE(Train(*Open("a"), 1).ok());
  ASSERT_TRUE(Delete(*registry_, "a", {}).ok());
  Open("a");
  Restart();
  EXPECT_EQ(Get("a")->Observe().observations.history, nullptr);
}

// Batches normalised with a snapshot are remembered with its vectors: whatever becomes of the snapshot, of the
// session's own and of the server.
TEST_F(StoredSessionTest, RepeatsAreComputedWithTheSnapshotOfThenAfterARestart) {
  ASSERT_TRUE(Train(*Open("a"), 1).ok());
  ASSERT_TRUE(TakeSnapshot(*Get("a"), {}, "s").ok());
  const std::vector<double> mean = Get("a")->Snapshot()->running->mean;
  const auto train_with = [&](const std::string& request_id) {
    const auto session = Get("a");
    const SessionContent content = session->Observe();
    const auto found = content.snapshots->find("s");
    return CommitForward(*session, {.request_id = request_id}, kPayload,
                         {.snapshot = content.state,
                          .moments = SomeMoments(2),
                          .normalized_with = NormalizedWith::kSnapshot,
                          .named = found == content.snapshots->end() ? nullptr : found->second.state});
  };
  ASSERT_TRUE(train_with("while it is the session's own").ok());
  Restart();
  ASSERT_TRUE(train_with("when it is not").ok());
  ASSERT_TRUE(DeleteSnapshot(*Get("a"), {}, "s").ok());
  for (int round = 0; round < 3; ++round) {
    for (const char* const id : {"while it is the session's own", "when it is not"}) {
      const auto repeat = train_with(id);
      ASSERT_TRUE(repeat.ok()) << repeat.status();
      EXPECT_EQ(repeat->normalized_with, NormalizedWith::kSnapshot);
      ASSERT_NE(repeat->running, nullptr);
      EXPECT_EQ(repeat->running->mean, mean);
    }
    Restart();
    ASSERT_TRUE(Train(*Get("a"), 5 + round).ok());
  }
}

TEST_F(StoredSessionTest, WhereStatisticsWereSetIsStoredAndGoesBackWithASnapshot) {
  const auto session = Open("a");
  ASSERT_TRUE(Train(*session, 1).ok());
  EXPECT_EQ(session->Snapshot()->statistics_set_at, kNeverSet);
  ASSERT_TRUE(TakeSnapshot(*session, {}, "averaged").ok());
  ASSERT_TRUE(RestoreSnapshot(*session, {}, "averaged").ok());
  EXPECT_EQ(session->Snapshot()->statistics_set_at, kNeverSet);
  SessionDraft draft{.name = "set", .config = {.num_features = 2}, .durability = Durability::kCommit};
  draft.statistics = NormalizationStatistics{.mean = {3, 4}, .variance = {5, 6}};
  ASSERT_TRUE(Create(*registry_, draft).ok());
  ASSERT_TRUE(Train(*Get("set"), 1).ok());
  ASSERT_TRUE(TakeSnapshot(*Get("set"), {}, "s").ok());
  draft.name = "told";
  draft.num_batches_tracked = 100;
  ASSERT_TRUE(Create(*registry_, draft).ok());
  for (int round = 0; round < 2; ++round) {
    EXPECT_EQ(Get("set")->Snapshot()->statistics_set_at, 0);
    EXPECT_EQ(Get("told")->Snapshot()->statistics_set_at, kNeverSet);
    Restart();
    ASSERT_TRUE(RestoreSnapshot(*Get("set"), {}, "s").ok());
  }
}

}  // namespace
}  // namespace normserve
