// Data directories that were damaged: what is noticed, what is still served, and what is said.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "tests/unit/server/status_matchers.h"
#include "tests/unit/server/stored_session_fixture.h"

namespace normserve {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// DATA_LOSS, and words for who has to mend it.
MATCHER_P(SaysDamaged, part, "") {
  return ExplainMatchResult(Fails(absl::StatusCode::kDataLoss, ErrorReason::kStoredDataLost), arg, result_listener) &&
         ExplainMatchResult(AllOf(HasSubstr("/normserve.db is damaged: "), HasSubstr(absl::StrCat(": ", part, ": ")),
                                  HasSubstr("restore the directory from a copy, or delete the s")),
                            std::string(arg.message()), result_listener);
}

class DamagedSessionTest : public StoredSessionTest {
 protected:
  // Runs `statement` on what a stopped server left, and starts another.
  void Damage(const std::string& statement) {
    store_->Close();
    Sql(statement);
    Restart();
  }

  std::vector<std::string> Listed() {
    std::vector<std::string> names;
    const auto page = registry_->List("", 0, "");
    for (const SessionDescription& session : page->sessions) names.push_back(session.name);
    return names;
  }
};

TEST_F(DamagedSessionTest, ADamagedRowOfARememberedRequestIsNoRequestNeverSeen) {
  const char* const damages[] = {
      "UPDATE requests SET request_id = 'another' WHERE sequence = 1",
      "UPDATE requests SET sequence = 7 WHERE sequence = 1",
      "UPDATE requests SET slot = 7 WHERE sequence = 1",
      "UPDATE requests SET slot = 1025, sequence = 1025 WHERE sequence = 1",
      "DELETE FROM requests WHERE sequence = 0",
      "DELETE FROM requests WHERE sequence = 2",
      "DELETE FROM requests",
      // As sound as before, each in the place of another.
      "UPDATE requests SET request_id = 'r' || (2 - sequence)",
      ("DELETE FROM requests WHERE session = (SELECT id FROM sessions WHERE name = 'damaged');"
       "UPDATE requests SET session = (SELECT id FROM sessions WHERE name = 'damaged')"),
  };
  for (const char* const damage : damages) {
    SCOPED_TRACE(damage);
    for (const char* const name : {"damaged", "other"}) {
      const auto session = Open(name);
      for (int i = 0; i < 3; ++i) ASSERT_TRUE(Train(*session, i, absl::StrCat("r", i)).ok());
    }
    Damage(damage);
    const auto session = Get("damaged");
    ASSERT_NE(session, nullptr);
    EXPECT_THAT(Train(*session, 1, "r1").status(), SaysDamaged("remembered request"));
    EXPECT_THAT(SetMode(*session, {}, Mode::kEval).status(), SaysDamaged("remembered request"));
    EXPECT_EQ(session->Snapshot()->num_batches_tracked, 3);
    for (const char* const name : {"damaged", "other"}) EXPECT_TRUE(Delete(*registry_, name, {}).ok());
  }
}

TEST_F(DamagedSessionTest, ARingThatHasGoneRoundIsWhole) {
  const auto session = Open("a");
  for (int i = 0; i < 1030; ++i) ASSERT_TRUE(Train(*session, i, absl::StrCat(i)).ok());
  Restart();
  EXPECT_EQ(Train(*Get("a"), 6, "6")->generation, 7);
  Damage("DELETE FROM requests WHERE sequence = 6");
  EXPECT_THAT(Train(*Get("a"), 6, "6").status(), SaysDamaged("remembered request"));
}

TEST_F(DamagedSessionTest, MissingShadowMomentsAreNotNone) {
  for (const char* const damage :
       {"DELETE FROM current_vectors WHERE kind = 3", "UPDATE current_vectors SET version = 1 WHERE kind = 3"}) {
    const auto session = Open("a");
    ASSERT_TRUE(SetMode(*session, {}, Mode::kShadow).ok());
    ASSERT_TRUE(Train(*session, 1, "", NormalizedWith::kRunning, Update::kShadow).ok());
    ASSERT_TRUE(SetParameters(*session, {}, {7, 8}, {}).ok());
    Restart();
    EXPECT_NE(Get("a")->Observe().observations.shadow, nullptr);
    Damage(damage);
    EXPECT_THAT(registry_->Find("a").status(), SaysDamaged("shadow moments")) << damage;
    EXPECT_TRUE(Delete(*registry_, "a", {}).ok());
  }
}

TEST_F(DamagedSessionTest, TheErrorNamesTheVectorsThatAreDamaged) {
  const std::pair<const char*, const char*> cases[] = {
      {"DELETE FROM current_vectors WHERE kind = 1", "weight and bias"},
      {"UPDATE current_vectors SET data = x'01' WHERE kind = 1", "weight and bias"},
      {"UPDATE current_vectors SET version = 9 WHERE kind = 2", "running statistics"},
      {"UPDATE current_vectors SET kind = 9 WHERE kind = 2", "vectors"},
      {"UPDATE sessions SET record = x'01'", "configuration"},
  };
  for (const auto& [damage, part] : cases) {
    Open("a");
    Damage(damage);
    const absl::Status status = registry_->Find("a").status();
    EXPECT_THAT(status, SaysDamaged(part)) << damage;
    EXPECT_THAT(std::string(status.message()), HasSubstr("session \"a\" in /")) << damage;
    EXPECT_TRUE(Delete(*registry_, "a", {}).ok());
  }
}

TEST_F(DamagedSessionTest, ADamagedSnapshotIsLostByItselfAndCanBeDeleted) {
  const char* const damages[] = {
      "UPDATE snapshots SET record = x'01' WHERE name = 's'",
      "UPDATE snapshots SET record = (SELECT record FROM snapshots WHERE name = 't') WHERE name = 's'",
  };
  for (const char* const damage : damages) {
    SCOPED_TRACE(damage);
    Open("a");
    for (const char* const name : {"s", "t"}) ASSERT_TRUE(TakeSnapshot(*Get("a"), {}, name).ok());
    ASSERT_TRUE(Train(*Get("a"), 1).ok());
    Damage(damage);
    const auto session = Get("a");
    ASSERT_NE(session, nullptr);
    EXPECT_THAT(RestoreSnapshot(*session, {}, "s").status(), SaysDamaged("snapshot \"s\""));
    EXPECT_EQ(session->Snapshot()->num_batches_tracked, 1);
    const SessionContent content = session->Observe();
    const SnapshotDescription listed = session->Describe("s", content.snapshots->at("s"));
    EXPECT_EQ(listed.create_time, absl::UnixEpoch());
    EXPECT_EQ(listed.size_bytes, StateSizeBytes(2));
    EXPECT_EQ(registry_->GetUsage().state_bytes, SessionSizeBytes(2) + 2 * StateSizeBytes(2));
    EXPECT_TRUE(RestoreSnapshot(*session, {}, "t").ok());
    EXPECT_TRUE(DeleteSnapshot(*session, {}, "s").ok());
    EXPECT_EQ(registry_->GetUsage().state_bytes, SessionSizeBytes(2) + StateSizeBytes(2));
    Restart();
    EXPECT_EQ(Get("a")->Observe().snapshots->size(), 1u);
    EXPECT_TRUE(Delete(*registry_, "a", {}).ok());
    EXPECT_EQ(registry_->GetUsage().state_bytes, 0);
  }
}

TEST_F(DamagedSessionTest, ADamagedPointOfHistoryIsLostByItself) {
  const char* const damages[] = {
      "UPDATE history SET record = x'01' WHERE slot = 3",
      "DELETE FROM history WHERE slot = 3",
      "UPDATE history SET slot = 1000 WHERE slot = 3",
      "UPDATE history SET slot = -1 WHERE slot = 3",
      "UPDATE history SET record = (SELECT record FROM history WHERE slot = 2) WHERE slot = 3",
  };
  for (const char* const damage : damages) {
    SCOPED_TRACE(damage);
    Open("a");
    for (int i = 1; i <= 4; ++i) ASSERT_TRUE(Train(*Get("a"), i).ok());
    const std::shared_ptr<const Moments> newest = Get("a")->Observe().observations.last_batch;
    Damage(damage);
    const auto session = Get("a");
    ASSERT_NE(session, nullptr);
    const Observations& observations = session->Observe().observations;
    ASSERT_NE(observations.last_batch, nullptr);
    EXPECT_EQ(observations.last_batch->mean, newest->mean);
    EXPECT_EQ(RecentBatches(observations.history.get()).size(), 3u);
    EXPECT_TRUE(Train(*session, 5).ok());
    EXPECT_EQ(RecentBatches(session->Observe().observations.history.get()).size(), 4u);
    EXPECT_TRUE(Delete(*registry_, "a", {}).ok());
  }
}

TEST_F(DamagedSessionTest, WithoutItsNewestPointALastBatchIsNotKnown) {
  Open("a");
  for (int i = 1; i <= 4; ++i) ASSERT_TRUE(Train(*Get("a"), i).ok());
  Damage("DELETE FROM history WHERE slot = 4");
  EXPECT_EQ(Get("a")->Observe().observations.last_batch, nullptr);
  EXPECT_EQ(Get("a")->Snapshot()->num_batches_tracked, 4);
}

TEST_F(DamagedSessionTest, OneWithADamagedNameOrUidKeepsTheNameThatItsRecordSays) {
  const char* const damages[] = {
      "UPDATE sessions SET name = CAST(x'61ff' AS TEXT) WHERE name = 'a'",
      "UPDATE sessions SET name = 'c' WHERE name = 'a'",
      "UPDATE sessions SET uid = CAST(x'ff' AS TEXT) WHERE name = 'a'",
      "UPDATE sessions SET uid = '0123456789abcdef0123456789abcdef' WHERE name = 'a'",
  };
  Open("b");
  for (const char* const damage : damages) {
    SCOPED_TRACE(damage);
    Open("a");
    Damage(damage);
    EXPECT_THAT(report_.damaged, ElementsAre("a"));
    EXPECT_THAT(Listed(), ElementsAre("b"));
    EXPECT_EQ(registry_->GetUsage().num_sessions, 2);
    EXPECT_THAT(registry_->Find("a").status(), SaysDamaged("configuration"));
    EXPECT_THAT(std::string(registry_->Find("a").status().message()), HasSubstr("session \"a\" in "));
    EXPECT_THAT(Delete(*registry_, "a", {.expected_uid = "other"}).status(),
                Fails(absl::StatusCode::kAborted, ErrorReason::kUidMismatch));
    EXPECT_THAT(Create(*registry_, {.name = "a", .config = {.num_features = 2}}).status(),
                Fails(absl::StatusCode::kAlreadyExists, ErrorReason::kSessionExists));
    const auto deleted = Delete(*registry_, "a", {});
    ASSERT_TRUE(deleted.ok()) << deleted.status();
    EXPECT_EQ(deleted->uid.find('\xff'), std::string::npos);
    EXPECT_EQ(registry_->GetUsage().state_bytes, SessionSizeBytes(2));
    Restart();
    EXPECT_TRUE(report_.damaged.empty());
  }
}

TEST_F(DamagedSessionTest, ANameThatIsNotLegalIsShownEscaped) {
  Open("a");
  Damage("UPDATE sessions SET name = CAST(x'6d2fff' AS TEXT), record = x'01'");
  EXPECT_THAT(report_.damaged, ElementsAre("m/\\xff"));
  EXPECT_THAT(Listed(), ElementsAre());
  const absl::Status of_model = registry_->FindAll("m/").status();
  EXPECT_THAT(of_model, SaysDamaged("configuration"));
  EXPECT_THAT(std::string(of_model.message()), HasSubstr("session \"m/\\xff\" in"));
}

TEST_F(DamagedSessionTest, DamagedRequestsOfTheServerAreLeftOutAndAllElseIsServed) {
  const char* const damages[] = {
      "UPDATE server_requests SET record = x'00' WHERE sequence = 1",
      "UPDATE server_requests SET request_id = 'c' WHERE sequence = 1",
      "UPDATE server_requests SET sequence = 9223372036854775807 WHERE sequence = 1",
      "UPDATE server_requests SET slot = -1, sequence = -1 WHERE sequence = 1",
  };
  for (const char* const damage : damages) {
    SCOPED_TRACE(damage);
    Sql("DELETE FROM server_requests");
    Restart();
    const auto create = [&](const std::string& name) {
      return Create(*registry_, {.name = name, .request_id = name, .config = {.num_features = 2}});
    };
    ASSERT_TRUE(create("a").ok());
    ASSERT_TRUE(create("b").ok());
    Damage(damage);
    EXPECT_EQ(report_.num_lost_requests, 1);
    EXPECT_TRUE(create("a").ok());
    EXPECT_THAT(create("b").status(), Fails(absl::StatusCode::kAlreadyExists, ErrorReason::kSessionExists));
    ASSERT_TRUE(create("d").ok());
    Restart();
    EXPECT_TRUE(create("d").ok());
    for (const char* const name : {"a", "b", "d"}) EXPECT_TRUE(Delete(*registry_, name, {}).ok());
  }
}

}  // namespace
}  // namespace normserve
