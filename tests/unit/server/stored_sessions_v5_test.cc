// What was written before a session kept what it had observed earlier is read for good: sessions_v5.db (schema version
// 5, heads of version 5) holds what Write() below made then. What it makes today must read the same but for that.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "server/session/gathering.h"
#include "server/session/observation.h"
#include "tests/unit/server/status_matchers.h"
#include "tests/unit/server/stored_session_fixture.h"

namespace normserve {
namespace {

using ::testing::ElementsAre;

class StoredSessionsV5Test : public StoredSessionTest, public testing::WithParamInterface<bool> {
 protected:
  void SetUp() override {
    if (GetParam()) {
      std::filesystem::copy_file(NORMSERVE_SESSIONS_V5, directory_.file("normserve.db"));
    } else {
      Restart();
      Write();
    }
    Restart();
    EXPECT_TRUE(report_.damaged.empty());
  }

  absl::StatusOr<std::vector<ObservedSession>> Observe(const std::string& name, ObserveRequest request) {
    request.name = name;
    return AnswerOf<std::vector<ObservedSession>>([&](auto answered) {
      normserve::Observe({Get(name)}, {Get(name)->Observe()}, std::move(request), std::move(answered));
    });
  }

  absl::StatusOr<std::vector<GatheredSession>> Gather(GatherRequest request) {
    const auto session = Get(request.name);
    return AnswerOf<std::vector<GatheredSession>>([&](auto answered) {
      normserve::Gather({session}, {session->Observe()}, {}, std::move(request), std::move(answered));
    });
  }

  static GatherRequest::Part Part(const std::string& id, double seed) {
    return {.id = id, .given = {.moments = SomeMoments(seed)}};
  }

  void Write() {
    Open("model/a");
    for (int i = 1; i <= 10; ++i) {
      ASSERT_TRUE(Train(*Get("model/a"), i, absl::StrCat("a", i)).ok());
      if (i == 3) {
        ASSERT_TRUE(TakeSnapshot(*Get("model/a"), {}, "three").ok());
      }
    }
    ASSERT_TRUE(Observe("model/a", {.given = {.moments = SomeMoments(90)}, .part_id = "forgotten"}).ok());
    ASSERT_TRUE(Observe("model/a", {.given = {.moments = SomeMoments(3)}, .part_id = "p1", .reset = true}).ok());
    ASSERT_TRUE(Observe("model/a", {.given = {.moments = SomeMoments(6)}, .part_id = "p2"}).ok());
    ASSERT_TRUE(Observe("model/a", {.guard = {.request_id = "o3"}, .given = {.moments = SomeMoments(12)}}).ok());
    ASSERT_TRUE(Gather({.name = "model/a", .id = "sites", .parts = {Part("east", 3), Part("west", 6)}}).ok());
    ASSERT_TRUE(Gather({.kind = CollectionKind::kCalibration,
                        .name = "model/a",
                        .guard = {.request_id = "c1"},
                        .id = "night",
                        .parts = {Part("batch 0", 9)}})
                    .ok());
    Open("model/b", Durability::kFlush);
    ASSERT_TRUE(SetMode(*Get("model/b"), {}, Mode::kShadow).ok());
    ASSERT_TRUE(Train(*Get("model/b"), 3, "", NormalizedWith::kRunning, Update::kShadow).ok());
    // Observed, and forgotten.
    Open("model/c");
    ASSERT_TRUE(Observe("model/c", {.given = {.moments = SomeMoments(3)}, .part_id = "p1"}).ok());
    ASSERT_TRUE(Observe("model/c", {.reset = true}).ok());
  }
};

// Eight values of mean 1, 2 and 4 in channel 0 and one more in channel 1, with the m2 of SomeMoments: around the common
// mean 7 / 3 lie 8 (16 + 1 + 25) / 9 more.
void ExpectObserved(const Observations& seen) {
  ASSERT_NE(seen.observed, nullptr);
  EXPECT_EQ(seen.observed->count, 24);
  EXPECT_DOUBLE_EQ(seen.observed->mean[0], 7.0 / 3);
  EXPECT_DOUBLE_EQ(seen.observed->mean[1], 10.0 / 3);
  EXPECT_NEAR(seen.observed->m2[0], 21 * 1.1 + 8 * 42.0 / 9, 1e-12);
  EXPECT_NEAR(seen.observed->m2[1], 21 * 1.1 + 0.3 + 8 * 42.0 / 9, 1e-12);
}

TEST_P(StoredSessionsV5Test, StateSnapshotAndHistoryAreAsTheyWereWritten) {
  EXPECT_EQ(registry_->List("", 0, "")->sessions.size(), 3u);
  const SessionContent a = Get("model/a")->Observe();
  EXPECT_EQ(a.state->generation, 10);
  EXPECT_EQ(a.state->num_batches_tracked, 10);
  EXPECT_EQ(a.state->statistics_set_at, kNeverSet);
  // Momentum 0.1; batch i has mean i / 3 and m2 1.1 i in channel 0.
  double mean = 0, variance = 1;
  for (int i = 1; i <= 10; ++i) {
    mean = 0.9 * mean + 0.1 * i / 3;
    variance = 0.9 * variance + 0.1 * 1.1 * i / 7;
    if (i == 3) {
      ASSERT_EQ(a.snapshots->size(), 1u);
      const StateSnapshot& three = a.snapshots->at("three");
      ASSERT_TRUE(three.lost.ok()) << three.lost;
      EXPECT_EQ(three.state->num_batches_tracked, 3);
      EXPECT_DOUBLE_EQ(three.state->running->mean[0], mean);
      EXPECT_DOUBLE_EQ(three.state->running->variance[0], variance);
    }
  }
  EXPECT_DOUBLE_EQ(a.state->running->mean[0], mean);
  EXPECT_DOUBLE_EQ(a.state->running->variance[0], variance);
  ASSERT_NE(a.observations.history, nullptr);
  EXPECT_EQ(a.observations.history->num_updates, 10);
  EXPECT_EQ(a.observations.last_batch->mean, SomeMoments(10).mean);
  std::vector<double> means;
  for (const auto& batch : RecentBatches(a.observations.history.get())) means.push_back(batch->mean[0]);
  EXPECT_THAT(means, ElementsAre(1, 4.0 / 3, 5.0 / 3, 2, 7.0 / 3, 8.0 / 3, 3, 10.0 / 3));

  const SessionContent b = Get("model/b")->Observe();
  EXPECT_EQ(b.state->mode, Mode::kShadow);
  EXPECT_EQ(b.state->config.durability, Durability::kFlush);
  ASSERT_NE(b.observations.shadow, nullptr);
  EXPECT_EQ(b.observations.shadow->mean, SomeMoments(3).mean);
  EXPECT_EQ(b.observations.observed, nullptr);
}

TEST_P(StoredSessionsV5Test, WhatWasObservedIsThereWithItsParts) {
  ExpectObserved(Get("model/a")->Observe().observations);
  ASSERT_TRUE(Observe("model/a", {.given = {.moments = SomeMoments(3)}, .part_id = "p1"}).ok());
  ASSERT_TRUE(Observe("model/a", {.given = {.moments = SomeMoments(6)}, .part_id = "p2"}).ok());
  ASSERT_TRUE(Observe("model/a", {.guard = {.request_id = "o3"}, .given = {.moments = SomeMoments(12)}}).ok());
  ExpectObserved(Get("model/a")->Observe().observations);
  EXPECT_THAT(Observe("model/a", {.given = {.moments = SomeMoments(7)}, .part_id = "p1"}).status(),
              Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kPartConflict));
  // A part that went with a reset counts again.
  ASSERT_TRUE(Observe("model/a", {.given = {.moments = SomeMoments(90)}, .part_id = "forgotten"}).ok());
  Restart();
  EXPECT_EQ(Get("model/a")->Observe().observations.observed->count, 32);
  EXPECT_EQ(Get("model/c")->Observe().observations.observed, nullptr);
  // Version 5 forgot what it had observed before a reset; from the next reset on it is kept.
  const std::shared_ptr<const Moments> before = Get("model/c")->Observe().observations.observed_before;
  EXPECT_EQ(before == nullptr, GetParam());
  if (before != nullptr) {
    EXPECT_EQ(before->mean, SomeMoments(3).mean);
  }
  ASSERT_TRUE(Observe("model/a", {.reset = true}).ok());
  Restart();
  EXPECT_EQ(Get("model/a")->Observe().observations.observed, nullptr);
  EXPECT_EQ(Get("model/a")->Observe().observations.observed_before->count, 32);
}

TEST_P(StoredSessionsV5Test, OpenCollectionsAreThereAndCommit) {
  const SessionContent a = Get("model/a")->Observe();
  ASSERT_NE(a.collections, nullptr);
  ASSERT_EQ(a.collections->size(), 2u);
  const Collection& sites = *a.collections->at({CollectionKind::kMerge, "sites"});
  ASSERT_EQ(sites.parts.size(), 2u);
  EXPECT_EQ(sites.parts[0]->id, "east");
  EXPECT_EQ(sites.parts[0]->moments.m2, SomeMoments(3).m2);
  EXPECT_EQ(sites.parts[1]->id, "west");
  EXPECT_EQ(sites.parts[1]->moments.mean, SomeMoments(6).mean);
  const Collection& night = *a.collections->at({CollectionKind::kCalibration, "night"});
  ASSERT_EQ(night.parts.size(), 1u);
  EXPECT_EQ(night.parts[0]->moments.mean, SomeMoments(9).mean);
  EXPECT_EQ(night.result, nullptr);

  const auto merged = Gather({.name = "model/a", .id = "sites", .commit = true});
  ASSERT_TRUE(merged.ok()) << merged.status();
  EXPECT_DOUBLE_EQ(merged->at(0).result->merged.mean[0], 1.5);
  ASSERT_TRUE(Gather({.kind = CollectionKind::kCalibration, .name = "model/a", .id = "night", .commit = true}).ok());
  Restart();
  EXPECT_DOUBLE_EQ(Get("model/a")->Snapshot()->running->mean[0], 3);
  EXPECT_EQ(Get("model/a")->Snapshot()->generation, 12);
}

TEST_P(StoredSessionsV5Test, ItsRequestsAreRepeats) {
  for (int i = 1; i <= 10; ++i) EXPECT_EQ(Train(*Get("model/a"), i, absl::StrCat("a", i))->generation, i);
  EXPECT_EQ(Get("model/a")->Snapshot()->generation, 10);
}

INSTANTIATE_TEST_SUITE_P(Written, StoredSessionsV5Test, testing::Bool(),
                         [](const auto& info) { return info.param ? "ByVersion5" : "Today"; });

}  // namespace
}  // namespace normserve
