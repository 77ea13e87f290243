// Changes of all sessions of a model: made, stored and seen together, or not at all.
#include "server/session/model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "tests/unit/server/answers.h"
#include "tests/unit/server/status_matchers.h"
#include "tests/unit/server/stored_session_fixture.h"

namespace normserve {
namespace {

using Descriptions = std::vector<SessionDescription>;
using testing::ElementsAre;
using testing::HasSubstr;

const auto kRefused = Fails(absl::StatusCode::kUnavailable, ErrorReason::kStoreRefused);

class ModelTest : public StoredSessionTest {
 protected:
  void SetUp() override {
    StoredSessionTest::SetUp();
    for (const char* name : {"net/b", "net/a", "net/c", "other"}) Open(name);
  }

  Model Net() { return Model("net/", *registry_->FindAll("net/")); }

  absl::StatusOr<Descriptions> SetMode(Mode mode, const std::string& request_id = "") {
    return AnswerOf<Descriptions>(
        [&](auto answered) { Net().SetMode({.request_id = request_id}, mode, std::move(answered)); });
  }
  absl::StatusOr<std::vector<SnapshotDescription>> TakeSnapshot(const std::string& name) {
    return AnswerOf<std::vector<SnapshotDescription>>(
        [&](auto answered) { Net().TakeSnapshot({}, name, std::move(answered)); });
  }

  // The modes of net/a, net/b and net/c.
  std::vector<Mode> Modes() {
    std::vector<Mode> modes;
    for (const char* name : {"net/a", "net/b", "net/c"}) modes.push_back(Get(name)->Snapshot()->mode);
    return modes;
  }
};

std::vector<std::string> NamesOf(const Descriptions& descriptions) {
  std::vector<std::string> names;
  for (const auto& description : descriptions) names.push_back(description.name);
  return names;
}

TEST_F(ModelTest, AChangeIsOneWriteAndSeenOnceItIsStored) {
  held_->Hold();
  Promise<Descriptions> changed;
  Net().SetMode({}, Mode::kEval, changed.Callback());
  EXPECT_EQ(held_->num_held(), 1u);
  EXPECT_FALSE(changed.is_there());
  EXPECT_THAT(Modes(), ElementsAre(Mode::kTrain, Mode::kTrain, Mode::kTrain));
  held_->PassOne();
  ASSERT_TRUE(changed.is_there());
  EXPECT_THAT(NamesOf(**changed), ElementsAre("net/a", "net/b", "net/c"));
  for (const auto& description : **changed) EXPECT_EQ(description.generation, 1);
  EXPECT_THAT(Modes(), ElementsAre(Mode::kEval, Mode::kEval, Mode::kEval));
  EXPECT_EQ(Get("other")->Snapshot()->generation, 0);
  Restart();
  EXPECT_THAT(Modes(), ElementsAre(Mode::kEval, Mode::kEval, Mode::kEval));
}

TEST_F(ModelTest, ARefusedWriteLeavesEverySessionAsItWasAndAbleToGoOn) {
  held_->Hold();
  Promise<Descriptions> refused;
  Promise<SessionDescription> made_of_it;
  Net().SetMode({.request_id = "id"}, Mode::kEval, refused.Callback());
  Get("net/b")->SetMode({}, Mode::kShadow, made_of_it.Callback());
  held_->RefuseOne();
  EXPECT_THAT((*refused).status(), kRefused);
  EXPECT_THAT((*made_of_it).status(), kRefused);
  held_->PassAll();
  EXPECT_THAT(Modes(), ElementsAre(Mode::kTrain, Mode::kTrain, Mode::kTrain));
  EXPECT_EQ((*SetMode(Mode::kEval, "id"))[1].generation, 1);
  EXPECT_THAT(Modes(), ElementsAre(Mode::kEval, Mode::kEval, Mode::kEval));
}

TEST_F(ModelTest, AChangeBeforeItThatIsRefusedTakesItAlong) {
  held_->Hold();
  Promise<SessionDescription> before, after;
  Promise<Descriptions> together;
  Get("net/b")->SetMode({}, Mode::kShadow, before.Callback());
  Net().SetMode({}, Mode::kEval, together.Callback());
  Get("net/a")->SetMode({}, Mode::kShadow, after.Callback());
  held_->RefuseOne();
  EXPECT_THAT((*before).status(), kRefused);
  held_->PassAll();
  EXPECT_THAT((*together).status(), kRefused);
  EXPECT_THAT((*after).status(), kRefused);
  EXPECT_THAT(Modes(), ElementsAre(Mode::kTrain, Mode::kTrain, Mode::kTrain));
  EXPECT_TRUE(SetMode(Mode::kEval).ok());
  Restart();
  EXPECT_THAT(Modes(), ElementsAre(Mode::kEval, Mode::kEval, Mode::kEval));
}

TEST_F(ModelTest, ARepeatAnswersAsTheFirstTimeAndChangesNothing) {
  const auto first = SetMode(Mode::kEval, "id");
  ASSERT_TRUE(first.ok()) << first.status();
  Open("net/d");
  ASSERT_TRUE(normserve::SetMode(*Get("net/a"), {}, Mode::kTrain).ok());
  for (int restart = 0; restart < 2; ++restart) {
    const auto again = SetMode(Mode::kEval, "id");
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_THAT(NamesOf(*again), ElementsAre("net/a", "net/b", "net/c"));
    for (size_t i = 0; i < 3; ++i) EXPECT_EQ((*again)[i].generation, (*first)[i].generation);
    EXPECT_EQ(Get("net/a")->Snapshot()->mode, Mode::kTrain);
    EXPECT_EQ(Get("net/d")->Snapshot()->mode, Mode::kTrain);
    EXPECT_THAT(SetMode(Mode::kShadow, "id").status(),
                Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kRequestIdReused));
    Restart();
  }
}

TEST_F(ModelTest, ARepeatOfOneThatIsNotStoredYetWaitsForIt) {
  held_->Hold();
  Promise<Descriptions> first, again;
  Net().SetMode({.request_id = "id"}, Mode::kEval, first.Callback());
  Net().SetMode({.request_id = "id"}, Mode::kEval, again.Callback());
  EXPECT_EQ(held_->num_held(), 1u);
  held_->PassAll();
  ASSERT_TRUE(again.is_there());
  EXPECT_EQ((**again)[2].generation, 1);
  EXPECT_EQ(Get("net/c")->Snapshot()->generation, 1);
}

TEST_F(ModelTest, APartThatCannotBeMadeLeavesEverySessionAsItWas) {
  ASSERT_TRUE(normserve::TakeSnapshot(*Get("net/c"), {}, "best").ok());
  const int64_t state_bytes = registry_->GetUsage().state_bytes;
  const auto taken = TakeSnapshot("best");
  EXPECT_THAT(taken.status(), Fails(absl::StatusCode::kAlreadyExists, ErrorReason::kSnapshotExists));
  EXPECT_THAT(std::string(taken.status().message()), HasSubstr("net/c"));
  EXPECT_TRUE(Get("net/a")->Observe().snapshots->empty());
  EXPECT_EQ(registry_->GetUsage().state_bytes, state_bytes);

  ASSERT_TRUE(TakeSnapshot("other").ok());
  ASSERT_TRUE(SetMode(Mode::kEval).ok());
  const auto restored =
      AnswerOf<Descriptions>([&](auto answered) { Net().RestoreSnapshot({}, "other", std::move(answered)); });
  ASSERT_TRUE(restored.ok()) << restored.status();
  EXPECT_THAT(Modes(), ElementsAre(Mode::kTrain, Mode::kTrain, Mode::kTrain));
  EXPECT_EQ((*restored)[0].generation, 2);
  const auto deleted = AnswerOf<std::vector<SnapshotDescription>>(
      [&](auto answered) { Net().DeleteSnapshot({}, "other", std::move(answered)); });
  ASSERT_TRUE(deleted.ok()) << deleted.status();
  EXPECT_EQ(registry_->GetUsage().state_bytes, state_bytes);
}

TEST_F(ModelTest, SessionsInMemoryOnlyAreChangedWhenTheOthersAreStored) {
  Open("net/none", Durability::kNone);
  Open("net/synced", Durability::kFlush);
  held_->Hold();
  Promise<Descriptions> together;
  Promise<SessionDescription> after;
  Net().SetMode({}, Mode::kEval, together.Callback());
  Get("net/none")->SetMode({}, Mode::kShadow, after.Callback());
  EXPECT_FALSE(after.is_there()) << "it is made of what is not stored yet";
  EXPECT_EQ(Get("net/none")->Snapshot()->generation, 0);
  held_->PassAll();
  EXPECT_EQ((**together).size(), 5u);
  EXPECT_EQ((*after)->generation, 2);
  EXPECT_EQ(Get("net/none")->Snapshot()->mode, Mode::kShadow);
  EXPECT_EQ(Get("net/synced")->Snapshot()->mode, Mode::kEval);
}

TEST_F(ModelTest, AllInMemoryOnlyAreChangedAtOnce) {
  SessionRegistry registry(SessionLimits{});
  for (const char* name : {"m/a", "m/b"}) {
    ASSERT_TRUE(Create(registry, {.name = name, .config = {.num_features = 2}}).ok());
  }
  const Model model("m/", *registry.FindAll("m/"));
  Promise<Descriptions> changed;
  model.SetMode({.request_id = "id"}, Mode::kEval, changed.Callback());
  ASSERT_TRUE(changed.is_there());
  EXPECT_EQ((**changed).size(), 2u);
  EXPECT_EQ((*registry.Find("m/b"))->Snapshot()->mode, Mode::kEval);
}

TEST_F(ModelTest, ExpectationsGoWithASingleSession) {
  for (const ChangeGuard& guard : {ChangeGuard{.expected_generation = 0}, ChangeGuard{.expected_uid = "x"}}) {
    const auto refused =
        AnswerOf<Descriptions>([&](auto answered) { Net().SetMode(guard, Mode::kEval, std::move(answered)); });
    EXPECT_THAT(refused.status(), Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kInvalidField));
  }
}

TEST_F(ModelTest, DeletionIsOneWriteAndARepeatAnswersAsTheFirstTime) {
  ASSERT_TRUE(TakeSnapshot("best").ok());
  const auto remove = [&](const std::string& request_id, const std::string& name = "net/") {
    return AnswerOf<Deletions>(
        [&](auto answered) { registry_->DeleteModel(name, {.request_id = request_id}, std::move(answered)); });
  };
  held_->Hold();
  Promise<Deletions> deleted, again;
  registry_->DeleteModel("net/", {.request_id = "id"}, deleted.Callback());
  registry_->DeleteModel("net/", {.request_id = "id"}, again.Callback());
  EXPECT_EQ(held_->num_held(), 1u);
  EXPECT_EQ(registry_->FindAll("net/")->size(), 3u) << "it is not stored yet";
  held_->PassAll();
  ASSERT_TRUE(deleted.is_there() && again.is_there());
  ASSERT_TRUE((*deleted).ok()) << (*deleted).status();
  const auto names_of = [](const Deletions& deletions) {
    std::vector<std::string> names;
    for (const Deletion& deletion : deletions) names.push_back(deletion.name);
    return names;
  };
  EXPECT_THAT(names_of(**deleted), ElementsAre("net/a", "net/b", "net/c"));
  EXPECT_EQ((**again)[1].uid, (**deleted)[1].uid);
  const auto usage = registry_->GetUsage();
  EXPECT_EQ(usage.num_sessions, 1);
  EXPECT_EQ(usage.state_bytes, SessionSizeBytes(2));
  for (int restart = 0; restart < 2; ++restart) {
    Restart();
    EXPECT_EQ(registry_->GetUsage().num_sessions, restart + 1);
    const auto repeated = remove("id");
    ASSERT_TRUE(repeated.ok()) << repeated.status();
    EXPECT_EQ((*repeated)[2].uid, (**deleted)[2].uid);
    EXPECT_EQ((*repeated)[2].name, "net/c");
    EXPECT_THAT(remove("id", "other/").status(),
                Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kRequestIdReused));
    if (restart == 0) {
      EXPECT_THAT(remove("another").status(), Fails(absl::StatusCode::kNotFound, ErrorReason::kSessionNotFound));
      Open("net/a");
    }
  }
}

TEST_F(ModelTest, ARefusedDeletionLeavesEverySessionAndCanBeRepeated) {
  held_->Hold();
  Promise<Deletions> refused;
  registry_->DeleteModel("net/", {.request_id = "id"}, refused.Callback());
  held_->RefuseOne();
  EXPECT_THAT((*refused).status(), kRefused);
  held_->PassAll();
  EXPECT_TRUE(SetMode(Mode::kEval).ok());
  EXPECT_EQ(registry_->FindAll("net/")->size(), 3u);
  for (const ChangeGuard& guard : {ChangeGuard{.expected_generation = 1}, ChangeGuard{.expected_uid = "x"}}) {
    const auto answer =
        AnswerOf<Deletions>([&](auto answered) { registry_->DeleteModel("net/", guard, std::move(answered)); });
    EXPECT_THAT(answer.status(), Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kInvalidField));
  }
  const auto deleted = AnswerOf<Deletions>(
      [&](auto answered) { registry_->DeleteModel("net/", {.request_id = "id"}, std::move(answered)); });
  ASSERT_TRUE(deleted.ok()) << deleted.status();
  EXPECT_EQ(deleted->size(), 3u);
  Restart();
  EXPECT_THAT(registry_->FindAll("net/").status(), Fails(absl::StatusCode::kNotFound, ErrorReason::kSessionNotFound));
  EXPECT_NE(Get("other"), nullptr);
}

TEST_F(ModelTest, WhoObservesAllSeesAllOfAChangeOrNothingOfIt) {
  const auto sessions = *registry_->FindAll("net/");
  std::atomic<bool> stop = false;
  std::thread writer([&] {
    for (int i = 0; !stop; ++i) EXPECT_TRUE(SetMode(i % 2 == 0 ? Mode::kEval : Mode::kTrain).ok());
  });
  for (int i = 0; i < 20'000; ++i) {
    const auto contents = registry_->ObserveAll(sessions);
    ASSERT_EQ(contents[0].state->generation, contents[1].state->generation);
    ASSERT_EQ(contents[1].state->generation, contents[2].state->generation);
  }
  stop = true;
  writer.join();
}

TEST_F(ModelTest, OverlappingModelsAndSessionsChangedFromManyThreadsLoseNothing) {
  constexpr int kThreads = 4, kRounds = 50;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kRounds; ++i) {
        if (t % 2 == 0) {
          EXPECT_TRUE(SetMode(Mode::kEval).ok());
        } else {
          EXPECT_TRUE(normserve::SetMode(*Get("net/b"), {}, Mode::kTrain).ok());
        }
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(Get("net/a")->Snapshot()->generation, 2 * kRounds);
  EXPECT_EQ(Get("net/b")->Snapshot()->generation, 4 * kRounds);
  Restart();
  EXPECT_EQ(Get("net/b")->Snapshot()->generation, 4 * kRounds);
}

}  // namespace
}  // namespace normserve
