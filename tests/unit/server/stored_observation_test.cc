// What was observed before the last reset: when it is replaced, what keeps it, and what it costs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/session/observation.h"
#include "server/session/session_diagnosis.h"
#include "tests/unit/server/status_matchers.h"
#include "tests/unit/server/stored_session_fixture.h"

namespace normserve {
namespace {

using ::testing::HasSubstr;

class StoredObservationTest : public StoredSessionTest {
 protected:
  void Observe(const std::string& name, ObserveRequest request) {
    request.name = name;
    const auto session = Get(name);
    const auto answer = AnswerOf<std::vector<ObservedSession>>([&](auto answered) {
      normserve::Observe({session}, {session->Observe()}, std::move(request), std::move(answered));
    });
    EXPECT_TRUE(answer.ok()) << answer.status();
  }
  void Observe(const std::string& name, double seed, bool reset = false) {
    Observe(name, {.given = {.moments = SomeMoments(seed)}, .reset = reset});
  }
  void Reset(const std::string& name) { Observe(name, {.reset = true}); }

  // Before and after a restart.
  void ExpectSeen(const std::string& name, std::optional<double> observed, std::optional<double> before) {
    for (int round = 0; round < 2; ++round) {
      const Observations seen = Get(name)->Observe().observations;
      for (const auto& [moments, seed] :
           {std::pair(seen.observed, observed), std::pair(seen.observed_before, before)}) {
        ASSERT_EQ(moments != nullptr, seed.has_value()) << round;
        if (!seed.has_value()) continue;
        EXPECT_EQ(moments->count, 8);
        EXPECT_EQ(moments->mean, SomeMoments(*seed).mean);
        EXPECT_EQ(moments->m2, SomeMoments(*seed).m2);
        EXPECT_EQ(moments->num_samples, SomeMoments(*seed).num_samples);
      }
      Restart();
    }
  }
};

TEST_F(StoredObservationTest, AResetKeepsWhatWasObservedBeforeIt) {
  Open("a");
  Observe("a", 1);
  ExpectSeen("a", 1, std::nullopt);
  Observe("a", 2, /*reset=*/true);
  ExpectSeen("a", 2, 1);
  // The next one replaces it; without data nothing is observed now.
  Reset("a");
  ExpectSeen("a", std::nullopt, 2);
}

TEST_F(StoredObservationTest, AResetThatFindsNothingLeavesIt) {
  Open("a");
  Reset("a");
  ExpectSeen("a", std::nullopt, std::nullopt);
  Observe("a", 1);
  Reset("a");
  Reset("a");
  ExpectSeen("a", std::nullopt, 1);
  Observe("a", 2, /*reset=*/true);
  ExpectSeen("a", 2, 1);
}

TEST_F(StoredObservationTest, ChangesOfOtherThingsLeaveItAndARepeatedResetDoesNotMoveTwice) {
  Open("a");
  Observe("a", 1);
  for (int round = 0; round < 3; ++round) {
    Observe("a", {.guard = {.request_id = "once"}, .given = {.moments = SomeMoments(2)}, .reset = true});
  }
  ASSERT_TRUE(Train(*Get("a"), 3).ok());
  ASSERT_TRUE(SetMode(*Get("a"), {}, Mode::kEval).ok());
  ASSERT_TRUE(TakeSnapshot(*Get("a"), {}, "s").ok());
  ASSERT_TRUE(RestoreSnapshot(*Get("a"), {}, "s").ok());
  Observe("a", {.given = {.moments = SomeMoments(9)}, .dry_run = true, .reset = true});
  ExpectSeen("a", 2, 1);
}

TEST_F(StoredObservationTest, AResetThatTheStoreRefusedMovedNothing) {
  const auto session = Open("a");
  Observe("a", 1);
  held_->Hold();
  Promise<std::vector<ObservedSession>> refused;
  normserve::Observe({session}, {session->Observe()}, {.name = "a", .reset = true}, refused.Callback());
  held_->RefuseOne();
  EXPECT_FALSE((*refused).ok());
  held_->PassAll();
  Observe("a", 2, /*reset=*/true);
  ExpectSeen("a", 2, 1);
}

TEST_F(StoredObservationTest, ItIsNotClonedAndGoesWithItsSession) {
  Open("a");
  Observe("a", 1);
  Observe("a", 2, /*reset=*/true);
  ASSERT_TRUE(Clone(*registry_, "a", {}, "b").ok());
  ExpectSeen("b", std::nullopt, std::nullopt);
  ASSERT_TRUE(Delete(*registry_, "a", {}).ok());
  Open("a");
  ExpectSeen("a", std::nullopt, std::nullopt);
}

// Weight, bias, running, shadow, observed and observed before, and the newest eight batches.
TEST_F(StoredObservationTest, ItIsChargedFromTheStart) {
  EXPECT_EQ(SessionSizeBytes(1) - SessionSizeBytes(0), 2 * 4 + 2 * 8 + 3 * 16 + 8 * 16);
  Open("a");
  const int64_t before = registry_->GetUsage().state_bytes;
  EXPECT_EQ(before, SessionSizeBytes(2));
  Observe("a", 1);
  Reset("a");
  EXPECT_EQ(registry_->GetUsage().state_bytes, before);
}

TEST_F(StoredObservationTest, DamagedItIsNotNone) {
  for (const char* const damage :
       {"DELETE FROM current_vectors WHERE kind = 5", "UPDATE current_vectors SET version = 1 WHERE kind = 5",
        "UPDATE current_vectors SET data = x'01' WHERE kind = 5"}) {
    Open("a");
    Observe("a", 1);
    Observe("a", 2, /*reset=*/true);
    store_->Close();
    Sql(damage);
    Restart();
    const absl::Status status = registry_->Find("a").status();
    EXPECT_THAT(status, Fails(absl::StatusCode::kDataLoss, ErrorReason::kStoredDataLost)) << damage;
    EXPECT_THAT(std::string(status.message()), HasSubstr("moments observed before"));
    EXPECT_TRUE(Delete(*registry_, "a", {}).ok());
  }
}

// Statistics that were pushed; data like them, then others.
TEST_F(StoredObservationTest, DiagnoseTakesItAsEarlierDataOfWhatIsObserved) {
  const auto data = [](double mean) { return Moments{.count = 8000, .mean = {mean, mean}, .m2 = {8000, 8000}}; };
  SessionDraft draft{.name = "a", .config = {.num_features = 2}, .durability = Durability::kCommit};
  draft.statistics = NormalizationStatistics{.mean = {3, 3}, .variance = {1, 1}};
  ASSERT_TRUE(Create(*registry_, draft).ok());
  const auto diagnose = [&](DiagnoseRequest request) {
    request.name = "a";
    return Diagnose({Get("a")}, {Get("a")->Observe()}, request)->at(0).layer;
  };
  Observe("a", {.given = {.moments = data(3.01)}});
  Observe("a", {.given = {.moments = data(5)}, .reset = true});
  Restart();
  EXPECT_EQ(diagnose({.observed = true}).main_cause, Cause::kDataShift);
  EXPECT_THAT(diagnose({.observed = true}).explanation, HasSubstr("fit what was observed before the last reset, 8000"));
  // Of a batch nobody says that it comes after it.
  EXPECT_EQ(diagnose({.moments = data(5)}).main_cause, Cause::kLagOrShift);
  Observe("a", {.given = {.moments = data(5.01)}, .reset = true});
  EXPECT_EQ(diagnose({.observed = true}).main_cause, Cause::kMomentumLag);
}

}  // namespace
}  // namespace normserve
