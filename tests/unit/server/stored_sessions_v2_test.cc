// What was written before there was a history is read for good: sessions_v2.db (schema version 3, records of version
// 2).
#include <gtest/gtest.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "tests/unit/server/stored_session_fixture.h"

namespace normserve {
namespace {

class StoredSessionsV2Test : public StoredSessionTest {
 protected:
  void SetUp() override {
    std::filesystem::copy_file(NORMSERVE_SESSIONS_V2, directory_.file("normserve.db"));
    Restart();
  }
};

TEST_F(StoredSessionsV2Test, SessionsAreAsTheyWereWritten) {
  EXPECT_TRUE(report_.damaged.empty());
  const SessionContent a = Get("model/a")->Observe();
  EXPECT_EQ(a.state->generation, 6);
  EXPECT_EQ(a.state->num_batches_tracked, 3);
  EXPECT_EQ(a.state->lineage, 1);
  // Momentum 0.1 and batches of mean i / 3 for i = 1, 2, 3.
  EXPECT_DOUBLE_EQ(a.state->running->mean[0], ((0.1 / 3) * 0.9 + 0.2 / 3) * 0.9 + 0.1);
  ASSERT_EQ(a.snapshots->size(), 1u);
  EXPECT_TRUE(a.snapshots->at("three").lost.ok());
  EXPECT_EQ(a.snapshots->at("three").state->running->mean, a.state->running->mean);
  const SessionContent b = Get("model/b")->Observe();
  ASSERT_NE(b.observations.shadow, nullptr);
  EXPECT_EQ(b.observations.shadow->count, 8);
  EXPECT_EQ(b.state->mode, Mode::kShadow);
  const SessionContent set = Get("model/set")->Observe();
  EXPECT_DOUBLE_EQ(set.state->running->mean[0], 3);  // (1 - 0.1) * 3 + 0.1 * 9 / 3
  for (const SessionContent& content : {a, b, set}) {
    EXPECT_EQ(content.state->statistics_set_at, kNeverSet);
    EXPECT_EQ(content.observations.history, nullptr);
    EXPECT_EQ(content.observations.last_batch, nullptr);
  }
}

TEST_F(StoredSessionsV2Test, ItsRequestsAreRepeats) {
  EXPECT_EQ(Train(*Get("model/a"), 2, "a2")->generation, 2);
  EXPECT_EQ(Get("model/a")->Snapshot()->generation, 6);
}

TEST_F(StoredSessionsV2Test, AHistoryBeginsWithTheNextBatch) {
  ASSERT_TRUE(Train(*Get("model/a"), 9, "new").ok());
  for (int round = 0; round < 2; ++round) {
    const Observations& observations = Get("model/a")->Observe().observations;
    ASSERT_NE(observations.history, nullptr);
    EXPECT_EQ(observations.history->num_updates, 1);
    EXPECT_EQ(observations.last_batch->mean, SomeMoments(9).mean);
    Restart();
  }
  ASSERT_TRUE(RestoreSnapshot(*Get("model/a"), {}, "three").ok());
  EXPECT_EQ(Get("model/a")->Snapshot()->num_batches_tracked, 3);
}

}  // namespace
}  // namespace normserve
