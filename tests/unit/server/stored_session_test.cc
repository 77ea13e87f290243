// Sessions in a store: what is seen when, and what comes back.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "server/session/session_registry.h"
#include "server/session/stored_requests.h"
#include "server/session/stored_state.h"
#include "server/session/stored_vectors.h"
#include "tests/unit/server/answers.h"
#include "tests/unit/server/status_matchers.h"
#include "tests/unit/server/stored_session_fixture.h"

namespace normserve {
namespace {

constexpr Fingerprint kOtherPayload{.low = 3, .high = 4};

std::vector<uint64_t> Bits(const std::vector<double>& values) {
  std::vector<uint64_t> bits;
  for (const double value : values) bits.push_back(std::bit_cast<uint64_t>(value));
  return bits;
}

void ExpectSameState(const SessionState& actual, const SessionState& expected) {
  EXPECT_EQ(actual.config, expected.config);
  EXPECT_EQ(actual.mode, expected.mode);
  EXPECT_EQ(actual.num_batches_tracked, expected.num_batches_tracked);
  EXPECT_EQ(actual.generation, expected.generation);
  EXPECT_EQ(actual.lineage, expected.lineage);
  EXPECT_EQ(actual.update_time, expected.update_time);
  EXPECT_EQ(actual.parameters->weight, expected.parameters->weight);
  EXPECT_EQ(actual.parameters->bias, expected.parameters->bias);
  ASSERT_EQ(actual.running == nullptr, expected.running == nullptr);
  if (expected.running == nullptr) return;
  EXPECT_EQ(Bits(actual.running->mean), Bits(expected.running->mean));
  EXPECT_EQ(Bits(actual.running->variance), Bits(expected.running->variance));
}

TEST_F(StoredSessionTest, AChangeIsSeenOnceItIsStored) {
  const auto session = Open("a");
  held_->Hold();
  Promise<SessionDescription> changed;
  session->SetMode({}, Mode::kEval, changed.Callback());
  EXPECT_FALSE(changed.is_there());
  EXPECT_EQ(session->Snapshot()->generation, 0);
  EXPECT_EQ(session->Snapshot()->mode, Mode::kTrain);
  EXPECT_EQ(registry_->List("", 0, "")->sessions[0].generation, 0);
  held_->PassOne();
  ASSERT_TRUE(changed.is_there());
  EXPECT_EQ((*changed)->generation, 1);
  EXPECT_EQ(session->Snapshot()->mode, Mode::kEval);
}

TEST_F(StoredSessionTest, ChangesAreMadeOfThoseThatAreNotStoredYet) {
  const auto session = Open("a");
  held_->Hold();
  Promise<ForwardAnswer> first, second;
  const ForwardCommit commit{.snapshot = session->Snapshot(), .moments = SomeMoments(1)};
  session->CommitForward({}, {}, commit, first.Callback());
  session->CommitForward({}, {}, commit, second.Callback());
  EXPECT_EQ(held_->num_held(), 2u);
  held_->PassAll();
  EXPECT_EQ((*first)->num_batches_tracked, 1);
  EXPECT_EQ((*second)->num_batches_tracked, 2);
  EXPECT_EQ(session->Snapshot()->num_batches_tracked, 2);
}

TEST_F(StoredSessionTest, ARepeatOfAChangeThatIsNotStoredYetWaitsForIt) {
  const auto session = Open("a");
  held_->Hold();
  Promise<SessionDescription> first, again, other;
  session->SetMode({.request_id = "id"}, Mode::kEval, first.Callback());
  session->SetMode({.request_id = "id"}, Mode::kEval, again.Callback());
  session->SetMode({.request_id = "id"}, Mode::kTrain, other.Callback());
  EXPECT_FALSE(again.is_there());
  EXPECT_FALSE(other.is_there());
  EXPECT_EQ(held_->num_held(), 1u);
  held_->PassAll();
  EXPECT_EQ((*first)->generation, 1);
  EXPECT_EQ((*again)->generation, 1);
  EXPECT_THAT((*other).status(), Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kRequestIdReused));
  EXPECT_EQ(session->Snapshot()->generation, 1);
}

TEST_F(StoredSessionTest, ARepeatOfAChangeThatIsRefusedIsMadeItself) {
  const auto session = Open("a");
  held_->Hold();
  Promise<SessionDescription> first, again;
  session->SetMode({.request_id = "id"}, Mode::kEval, first.Callback());
  session->SetMode({.request_id = "id"}, Mode::kEval, again.Callback());
  held_->RefuseOne();
  EXPECT_THAT((*first).status(), Fails(absl::StatusCode::kUnavailable, ErrorReason::kStoreRefused));
  EXPECT_FALSE(again.is_there());
  held_->PassAll();
  EXPECT_EQ((*again)->generation, 1);
}

TEST_F(StoredSessionTest, AnErrorThatHoldsOnlyWithAPendingChangeWaitsForIt) {
  const auto session = Open("a");
  held_->Hold();
  Promise<SessionDescription> change, too_late, in_time;
  session->SetMode({}, Mode::kEval, change.Callback());
  session->SetMode({.expected_generation = 0}, Mode::kEval, too_late.Callback());
  EXPECT_FALSE(too_late.is_there());
  held_->PassOne();
  EXPECT_THAT((*too_late).status(), Fails(absl::StatusCode::kAborted, ErrorReason::kGenerationMismatch));

  Promise<SessionDescription> refused;
  session->SetMode({}, Mode::kTrain, refused.Callback());
  session->SetMode({.expected_generation = 1}, Mode::kShadow, in_time.Callback());
  held_->RefuseOne();
  held_->PassAll();
  EXPECT_EQ((*in_time)->generation, 2);
  EXPECT_EQ((*in_time)->mode, Mode::kShadow);
}

TEST_F(StoredSessionTest, ARefusedChangeDropsAllThatWasMadeOfItAndTheNextIsMadeOfWhatIsStored) {
  const auto session = Open("a");
  ASSERT_TRUE(Train(*session, 1, "one").ok());
  const auto before = session->Snapshot();
  held_->Hold();
  Promise<ForwardAnswer> second, third, fourth;
  const ForwardCommit commit{.snapshot = before, .moments = SomeMoments(2)};
  session->CommitForward({.request_id = "two"}, kPayload, commit, second.Callback());
  session->CommitForward({.request_id = "three"}, kPayload, commit, third.Callback());
  held_->RefuseOne();
  for (const auto& answer : {second, third}) {
    EXPECT_THAT((*answer).status(), Fails(absl::StatusCode::kUnavailable, ErrorReason::kStoreRefused));
  }
  EXPECT_EQ(session->Snapshot(), before);
  // The third's own write is refused by the store, as its predecessor is not there; nobody asks any more.
  session->CommitForward({.request_id = "two"}, kPayload, commit, fourth.Callback());
  held_->PassAll();
  EXPECT_EQ((*fourth)->num_batches_tracked, 2);
  // Its place in the ring is that of the request that was refused.
  EXPECT_EQ(store_->LoadMemory(session->uid())->requests.back().sequence, 1);
  const auto after = session->Snapshot();
  Restart();
  ExpectSameState(*Get("a")->Snapshot(), *after);
  EXPECT_EQ(Train(*Get("a"), 2, "three")->num_batches_tracked, 3);
}

TEST_F(StoredSessionTest, AllOfASessionComesBackBitForBit) {
  SessionDraft draft{.name = "model/layer",
                     .config = {.num_features = 2,
                                .epsilon = 0x1.23456789abcdep-20,
                                .averaging = Averaging::kZeroDebiased,
                                .momentum = 0.3,
                                .running_variance = RunningVariance::kBiased,
                                .non_finite_policy = NonFinitePolicy::kSkipUpdate,
                                .convention = Convention::kFlax,
                                .labels = {{"owner", "me"}, {"site", ""}}},
                     .durability = Durability::kFlush,
                     .mode = Mode::kEval,
                     .parameters = {.weight = {-0.0f, 1e-42f}, .bias = {3, -4}},
                     .statistics = NormalizationStatistics{.mean = {-0.0, 0.1}, .variance = {5e-324, 3.4e38}},
                     .num_batches_tracked = 41};
  ASSERT_TRUE(Create(*registry_, draft).ok());
  auto session = Get("model/layer");
  ASSERT_TRUE(TakeSnapshot(*session, {}, "first").ok());
  ASSERT_TRUE(Train(*session, 1.5, "train").ok());
  ASSERT_TRUE(SetMode(*session, {}, Mode::kShadow).ok());
  ASSERT_TRUE(Train(*session, -2.5, "shadow", NormalizedWith::kRunning, Update::kShadow).ok());
  ASSERT_TRUE(Train(*session, 0.1, "shadow 2", NormalizedWith::kRunning, Update::kShadow).ok());
  ASSERT_TRUE(SetParameters(*session, {}, {7, 8}, {}).ok());
  const SessionContent before = session->Observe();
  const SessionDescription description = session->Describe(before);
  Restart();

  const auto listed = registry_->List("model/", 0, "", {{"owner", "me"}})->sessions;
  ASSERT_EQ(listed.size(), 1u);
  EXPECT_EQ(listed[0].uid, description.uid);
  EXPECT_EQ(listed[0].config, description.config);
  EXPECT_EQ(listed[0].generation, description.generation);
  EXPECT_EQ(listed[0].num_snapshots, 1);
  session = Get("model/layer");
  const SessionContent after = session->Observe();
  ExpectSameState(*after.state, *before.state);
  EXPECT_TRUE(std::signbit(after.snapshots->at("first").state->parameters->weight[0]));
  ExpectSameState(*after.snapshots->at("first").state, *before.snapshots->at("first").state);
  EXPECT_EQ(after.snapshots->at("first").create_time, before.snapshots->at("first").create_time);
  EXPECT_EQ(after.observations.shadow->count, 16);
  EXPECT_EQ(Bits(after.observations.shadow->mean), Bits(before.observations.shadow->mean));
  EXPECT_EQ(Bits(after.observations.shadow->m2), Bits(before.observations.shadow->m2));
  EXPECT_EQ(session->Describe(after).create_time, description.create_time);
  EXPECT_EQ(session->uid(), description.uid);
  EXPECT_EQ(session->Snapshot()->config.durability, Durability::kFlush);
}

TEST_F(StoredSessionTest, ARepeatAfterARestartIsComputedWithWhatTheFirstWas) {
  auto session = Open("a");
  ASSERT_TRUE(SetParameters(*session, {}, {3, 4}, {5, 6}).ok());
  ASSERT_TRUE(Train(*session, 1, "batch").ok());
  ASSERT_TRUE(Train(*session, 2, "running", NormalizedWith::kRunning).ok());
  const auto used = *session->Recall("running", kPayload);
  const std::vector<double> used_mean = used->running->mean;
  // Both sets are replaced, the statistics again and again.
  ASSERT_TRUE(SetParameters(*session, {}, {1, 1}, {1, 1}).ok());
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(Train(*session, i).ok());
  const auto mode = SetMode(*session, {.request_id = "mode"}, Mode::kEval);
  for (int restart = 0; restart < 2; ++restart) {
    Restart();
    session = Get("a");
    const auto batch = *session->Recall("batch", kPayload);
    ASSERT_TRUE(batch.has_value());
    EXPECT_EQ(batch->parameters->weight, std::vector<float>({3, 4}));
    EXPECT_EQ(batch->generation, 2);
    const auto running = *session->Recall("running", kPayload);
    ASSERT_TRUE(running.has_value());
    EXPECT_EQ(running->parameters->bias, std::vector<float>({5, 6}));
    EXPECT_EQ(Bits(running->running->mean), Bits(used_mean));
    EXPECT_EQ(running->snapshot_generation, 2);
    EXPECT_THAT(session->Recall("batch", kOtherPayload).status(),
                Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kRequestIdReused));
    EXPECT_EQ(SetMode(*session, {.request_id = "mode"}, Mode::kEval)->generation, mode->generation);
    EXPECT_EQ(Train(*session, 1, "batch")->generation, 2);
    EXPECT_EQ(session->Snapshot()->generation, mode->generation);
  }
}

TEST_F(StoredSessionTest, WhatIsRememberedIsReadBeforeTheFirstChangeAndNotBefore) {
  auto session = Open("a");
  ASSERT_TRUE(Train(*session, 1, "first").ok());
  Restart();
  Sql("UPDATE requests SET record = x'00'");
  session = Get("a");
  ASSERT_NE(session, nullptr);
  EXPECT_EQ(session->Snapshot()->generation, 1);
  const auto is_data_loss = Fails(absl::StatusCode::kDataLoss, ErrorReason::kStoredDataLost);
  EXPECT_THAT(Train(*session, 1, "first").status(), is_data_loss);
  EXPECT_THAT(SetMode(*session, {}, Mode::kEval).status(), is_data_loss);
  EXPECT_TRUE(session->Admit("first").may_be_remembered);
  EXPECT_THAT(session->Recall("first", kPayload).status(), is_data_loss);
  EXPECT_EQ(session->Snapshot()->generation, 1);
  EXPECT_THAT(TakeSnapshot(*session, {}, "s").status(), is_data_loss);
  EXPECT_EQ(registry_->GetUsage().state_bytes, SessionSizeBytes(2));
  Restart();
  EXPECT_EQ(Get("a")->Snapshot()->mode, Mode::kTrain);
  EXPECT_TRUE(Delete(*registry_, "a", {}).ok());
  EXPECT_EQ(registry_->GetUsage().state_bytes, 0);
}

TEST_F(StoredSessionTest, TheLast1024RequestsComeBackAndWhatOlderOnesUsedIsDropped) {
  auto session = Open("a");
  ASSERT_TRUE(Train(*session, 1, "oldest", NormalizedWith::kRunning).ok());
  EXPECT_EQ(store_->LoadMemory(session->uid())->kept.size(), 1u);
  for (int i = 0; i < 1030; ++i) ASSERT_TRUE(Train(*session, i, absl::StrCat(i)).ok());
  // One more, as what the newest drops goes with the write after it.
  EXPECT_EQ(store_->LoadMemory(session->uid())->kept.size(), 0u);
  Restart();
  session = Get("a");
  EXPECT_EQ(store_->LoadMemory(session->uid())->requests.size(), 1024u);
  EXPECT_EQ(*session->Recall("5", kPayload), std::nullopt);
  EXPECT_EQ((*session->Recall("6", kPayload))->generation, 8);
  EXPECT_EQ((*session->Recall("1029", kPayload))->generation, 1031);
  ASSERT_TRUE(Train(*session, 1, "next").ok());
  Restart();
  session = Get("a");
  EXPECT_EQ(*session->Recall("6", kPayload), std::nullopt);
  EXPECT_EQ((*session->Recall("next", kPayload))->generation, 1032);
}

TEST_F(StoredSessionTest, WhatAnUpdateStoresDoesNotGrowWithTheRequestsRemembered) {
  const int64_t num_features = 1000;
  ASSERT_TRUE(Create(*registry_, {.name = "wide", .config = {.num_features = num_features}}).ok());
  const auto session = Get("wide");
  for (int i = 0; i < 1100; ++i) {
    ASSERT_TRUE(CommitForward(*session, {.request_id = absl::StrCat(i)}, kPayload,
                              {.snapshot = session->Snapshot(),
                               .moments = SomeMoments(i, num_features),
                               .normalized_with = NormalizedWith::kRunning})
                    .ok());
  }
  // The newest of them are kept, bounded in bytes; the others keep their place, not their vectors.
  int64_t kept_bytes = 0;
  const auto stored = store_->LoadMemory(session->uid());
  for (const StoredVector& vector : stored->kept) kept_bytes += static_cast<int64_t>(vector.data.size());
  EXPECT_LT(kept_bytes, int64_t{5} << 20);
  EXPECT_GT(kept_bytes, 0);
  EXPECT_EQ((*session->Recall("1000", kPayload))->parameters == nullptr, false);
  EXPECT_EQ((*session->Recall("90", kPayload))->parameters, nullptr);
}

TEST_F(StoredSessionTest, SessionsWithoutDurabilityAreNotStored) {
  const auto session = Open("passing", Durability::kNone);
  ASSERT_TRUE(Train(*session, 1).ok());
  EXPECT_EQ(held_->num_writes(), 0);
  Open("lasting");
  Restart();
  EXPECT_THAT(registry_->Find("passing").status(), Fails(absl::StatusCode::kNotFound, ErrorReason::kSessionNotFound));
  Get("lasting");
}

TEST(WithoutAStore, DurabilityCannotBeAsked) {
  SessionRegistry registry({});
  EXPECT_EQ(registry.default_durability(), Durability::kNone);
  for (const Durability durability : {Durability::kCommit, Durability::kFlush}) {
    EXPECT_THAT(Create(registry, {.name = "a", .config = {.num_features = 2}, .durability = durability}).status(),
                Fails(absl::StatusCode::kFailedPrecondition, ErrorReason::kDurabilityUnavailable));
  }
}

TEST_F(StoredSessionTest, ASessionIsFoundOnceItIsStoredAndAnotherOfItsNameWaits) {
  held_->Hold();
  Promise<SessionDescription> first, second;
  registry_->Create({.name = "a", .config = {.num_features = 2}}, first.Callback());
  registry_->Create({.name = "a", .config = {.num_features = 3}}, second.Callback());
  EXPECT_FALSE(registry_->Find("a").ok());
  EXPECT_TRUE(registry_->List("", 0, "")->sessions.empty());
  EXPECT_FALSE(second.is_there());
  held_->RefuseOne();
  EXPECT_THAT((*first).status(), Fails(absl::StatusCode::kUnavailable, ErrorReason::kStoreRefused));
  held_->PassAll();
  EXPECT_EQ((*second)->config.num_features, 3);
  EXPECT_EQ(registry_->GetUsage().state_bytes, SessionSizeBytes(3));

  held_->Hold();
  Promise<SessionDescription> third;
  registry_->Create({.name = "b", .request_id = "b", .config = {.num_features = 2}}, third.Callback());
  Promise<SessionDescription> repeat;
  registry_->Create({.name = "b", .request_id = "b", .config = {.num_features = 2}}, repeat.Callback());
  EXPECT_EQ(held_->num_held(), 1u);
  held_->PassAll();
  EXPECT_EQ((*third)->uid, (*repeat)->uid);
}

TEST_F(StoredSessionTest, CreationsAndDeletionsAreRepeatableAfterARestart) {
  const SessionDraft draft{.name = "a", .request_id = "create", .config = {.num_features = 2}};
  const auto created = Create(*registry_, draft);
  ASSERT_TRUE(created.ok());
  const auto cloned = Clone(*registry_, "a", {.request_id = "clone"}, "b");
  ASSERT_TRUE(cloned.ok());
  const auto deleted = Delete(*registry_, "a", {.request_id = "delete"});
  ASSERT_TRUE(deleted.ok());
  Restart();
  EXPECT_EQ(Create(*registry_, draft)->uid, created->uid);
  EXPECT_EQ(Clone(*registry_, "a", {.request_id = "clone"}, "b")->uid, cloned->uid);
  EXPECT_EQ(Delete(*registry_, "a", {.request_id = "delete"})->uid, deleted->uid);
  EXPECT_FALSE(registry_->Find("a").ok());
  EXPECT_EQ(registry_->GetUsage().num_sessions, 1);
  EXPECT_EQ(registry_->GetUsage().state_bytes, SessionSizeBytes(2));
}

TEST_F(StoredSessionTest, ADeletionThatIsRefusedLeavesTheSession) {
  const auto session = Open("a");
  held_->Hold();
  Promise<Deletion> deleted;
  Promise<ForwardAnswer> folded;
  registry_->Delete("a", {}, deleted.Callback());
  session->CommitForward({}, {}, {.snapshot = session->Snapshot(), .moments = SomeMoments(1)}, folded.Callback());
  EXPECT_FALSE(folded.is_there());
  held_->RefuseOne();
  EXPECT_THAT((*deleted).status(), Fails(absl::StatusCode::kUnavailable, ErrorReason::kStoreRefused));
  held_->PassAll();
  EXPECT_EQ((*folded)->num_batches_tracked, 1);
  Restart();
  EXPECT_EQ(Get("a")->Snapshot()->num_batches_tracked, 1);
}

TEST_F(StoredSessionTest, DamageIsToldForTheSessionItIsInAndOthersAreServed) {
  Open("good");
  Open("vector");
  Open("head");
  ASSERT_TRUE(TakeSnapshot(*Get("vector"), {}, "s").ok());
  store_->Close();
  Sql("UPDATE current_vectors SET data = zeroblob(length(data)) WHERE session = (SELECT id FROM sessions WHERE name = "
      "'vector') AND kind = 2");
  Sql("UPDATE sessions SET record = substr(record, 1, 40) WHERE name = 'head'");
  Restart();
  EXPECT_EQ(report_.damaged, std::vector<std::string>({"head"}));
  EXPECT_EQ(registry_->List("", 0, "")->sessions.size(), 2u);
  EXPECT_EQ(registry_->GetUsage().num_sessions, 3);
  Get("good");
  for (const char* const name : {"vector", "head"}) {
    EXPECT_THAT(registry_->Find(name).status(), Fails(absl::StatusCode::kDataLoss, ErrorReason::kStoredDataLost));
    EXPECT_TRUE(Delete(*registry_, name, {.request_id = name}).ok());
    EXPECT_THAT(registry_->Find(name).status(), Fails(absl::StatusCode::kNotFound, ErrorReason::kSessionNotFound));
  }
  EXPECT_EQ(registry_->GetUsage().state_bytes, SessionSizeBytes(2));
  Restart();
  EXPECT_EQ(registry_->List("", 0, "")->sessions.size(), 1u);
}

TEST_F(StoredSessionTest, ASessionTakenOverByAnotherOwnerRefusesChangesAndIsRead) {
  const auto session = Open("a");
  Sql("UPDATE sessions SET epoch = epoch + 1");
  EXPECT_THAT(SetMode(*session, {}, Mode::kEval).status(),
              Fails(absl::StatusCode::kFailedPrecondition, ErrorReason::kNotOwner));
  EXPECT_EQ(session->Snapshot()->mode, Mode::kTrain);
}

constexpr char kUid[] = "0123456789abcdef0123456789abcdef";

TEST(Records, OfRequestsWithOneIdTheNewestCounts) {
  const RequestRing ring{.num_slots = 4};
  const auto row = [&](int64_t sequence, const std::string& id, int64_t generation) {
    return WriteRequest(ring, sequence, id, {kPayload, Deletion{.generation = generation}});
  };
  std::vector<std::pair<std::string, int64_t>> read;
  ReadRequests(
      {}, ring, {row(5, "a", 1), row(6, "b", 2), row(8, "a", 3)},
      [&](const StoredRequest& taken, RememberedRequest request) {
        read.emplace_back(taken.request_id, std::get<Deletion>(request.answer).generation);
      },
      [](const absl::Status& damage) { ADD_FAILURE() << damage; });
  EXPECT_EQ(read, (std::vector<std::pair<std::string, int64_t>>{{"b", 2}, {"a", 3}}));
}

TEST(Records, AnyDamageIsNoticed) {
  const RequestRing ring{.uid = kUid, .num_slots = 4};
  const RememberedRequest request{kPayload, SnapshotDescription{.session = "s", .uid = "u", .name = "n"}};
  const SessionState state{.config = {.num_features = 1, .labels = {{"k", "v"}}}};
  const std::string records[] = {WriteHead({.state = state, .name = "a", .uid = kUid}), WriteParameters({{1}, {2}}),
                                 WriteRequest(ring, 5, "id", request).record};
  for (size_t kind = 0; kind < 3; ++kind) {
    const auto read = [&](const std::string& record) -> absl::Status {
      if (kind == 0) return ReadHead({}, {.name = "a", .uid = kUid, .record = record}).status();
      StoredVectors vectors;
      if (kind == 1) return ReadVector({}, {VectorKind::kParameters, /*version=*/0, record}, /*length=*/1, vectors);
      return ReadRequest({}, ring, {.slot = 1, .sequence = 5, .request_id = "id", .record = record}).status();
    };
    ASSERT_TRUE(read(records[kind]).ok());
    for (size_t i = 0; i < records[kind].size(); ++i) {
      std::string damaged = records[kind];
      damaged[i] ^= 4;
      EXPECT_THAT(read(damaged), Fails(absl::StatusCode::kDataLoss, ErrorReason::kStoredDataLost));
      EXPECT_FALSE(read(records[kind].substr(0, i)).ok());
    }
    EXPECT_FALSE(read(records[kind] + '\0').ok());
    // A record of another kind has a right checksum and is none the less refused.
    EXPECT_FALSE(read(records[(kind + 1) % 3]).ok());
  }
}

}  // namespace
}  // namespace normserve
