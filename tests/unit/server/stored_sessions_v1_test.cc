// What the first version that kept sessions wrote is read for good: sessions_v1.db (schema version 1, records of
// version 1).
#include <gtest/gtest.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "server/session/forward_request.h"
#include "server/session/session_registry.h"
#include "server/store/sqlite_store.h"
#include "tests/unit/server/answers.h"
#include "tests/unit/server/request_maker.h"
#include "tests/unit/server/status_matchers.h"
#include "tests/unit/store/scratch_directory.h"

namespace normserve {
namespace {

class StoredSessionsV1Test : public testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::copy_file(NORMSERVE_SESSIONS_V1, directories_.back()->file("normserve.db"));
    Open();
  }

  void Open() {
    registry_.reset();
    store_.reset();
    auto opened = SqliteStore::Open({.directory = directories_.back()->path()});
    ASSERT_TRUE(opened.ok()) << opened.status();
    store_ = *std::move(opened);
    registry_ = std::make_unique<SessionRegistry>(SessionLimits{}, store_.get());
    const auto report = registry_->Load();
    ASSERT_TRUE(report.ok()) << report.status();
    ASSERT_TRUE(report->damaged.empty());
  }

  // As after a kill: what lies on the disk while the store is open, elsewhere.
  void OpenAfterCrash() {
    auto copy = std::make_unique<ScratchDirectory>();
    for (const auto& [name, bytes] : directories_.back()->Contents()) copy->Write(name, bytes);
    directories_.push_back(std::move(copy));
    Open();
    directories_.erase(directories_.begin());
  }

  std::shared_ptr<Session> Get(const std::string& name) {
    auto found = registry_->Find(name);
    EXPECT_TRUE(found.ok()) << found.status();
    return found.ok() ? *found : nullptr;
  }

  // The batch that was sent with the request id "a1", "a2", ...
  static ForwardRequest Sent(int factor) {
    std::vector<float> values;
    for (int i = 0; i < 24; ++i) values.push_back(static_cast<float>(i) / 7.0f * static_cast<float>(factor));
    ForwardRequest request = MakeForward("model/a", {4, 3, 2}, values, absl::StrCat("a", factor));
    request.mode = Mode::kTrain;
    return request;
  }

  std::vector<std::unique_ptr<ScratchDirectory>> directories_ = [] {
    std::vector<std::unique_ptr<ScratchDirectory>> first;
    first.push_back(std::make_unique<ScratchDirectory>());
    return first;
  }();
  std::unique_ptr<StateStore> store_;
  std::unique_ptr<SessionRegistry> registry_;
};

TEST_F(StoredSessionsV1Test, SessionsAreAsTheyWereWritten) {
  EXPECT_EQ(registry_->List("", 0, "")->sessions.size(), 3u);
  const auto a = Get("model/a");
  EXPECT_EQ(a->uid(), "49d1e34aed4aa12878b0c66c68761198");
  const auto state = a->Snapshot();
  EXPECT_EQ(state->generation, 7);
  EXPECT_EQ(state->num_batches_tracked, 6);
  EXPECT_EQ(state->lineage, 1);
  EXPECT_EQ(state->config.durability, Durability::kCommit);
  EXPECT_EQ(state->config.labels, (Labels{{"site", "north"}}));
  EXPECT_EQ(state->parameters->weight, std::vector<float>({0.5f, 0.25f, 2}));
  EXPECT_EQ(state->running->mean, std::vector<double>({2.41974359370395, 2.929163356372908, 3.438583133861803}));
  EXPECT_EQ(state->running->variance, std::vector<double>({9.105024194003134, 9.105024539719462, 9.105025107777891}));

  const SessionContent b = Get("model/b")->Observe();
  EXPECT_EQ(b.state->mode, Mode::kShadow);
  EXPECT_EQ(b.state->config.durability, Durability::kFlush);
  EXPECT_EQ(b.state->config.convention, Convention::kKeras);
  EXPECT_EQ(b.state->parameters->bias, std::vector<float>({4, 5, 6}));
  ASSERT_NE(b.observations.shadow, nullptr);
  EXPECT_EQ(b.observations.shadow->count, 24);
  EXPECT_EQ(b.observations.shadow->mean[0], 2.7142856636395054);
  EXPECT_EQ(b.observations.shadow->m2[0], 132.89795090227753);
  EXPECT_TRUE(b.snapshots->empty());
  EXPECT_EQ(Get("copy")->Snapshot()->generation, 0);
}

TEST_F(StoredSessionsV1Test, ItsRequestsAreRepeats) {
  const auto a = Get("model/a");
  for (int factor = 1; factor <= 5; ++factor) {
    const ForwardRequest request = Sent(factor);
    const auto answer = a->Recall(request.guard.request_id, FingerprintOf(request));
    ASSERT_TRUE(answer.ok()) << answer.status();
    ASSERT_TRUE(answer->has_value());
    EXPECT_EQ((*answer)->generation, factor);
    // Other parameters came after; those of then are here.
    EXPECT_EQ((*answer)->parameters->weight, std::vector<float>({1, 1, 1}));
  }
  EXPECT_EQ(Clone(*registry_, "model/a", {.request_id = "clone"}, "copy")->uid, "341f834fe60598ccfde8f1929e2d3496");
  EXPECT_TRUE(Delete(*registry_, "gone", {.request_id = "delete gone"}).ok());
  EXPECT_THAT(Delete(*registry_, "gone", {}).status(),
              Fails(absl::StatusCode::kNotFound, ErrorReason::kSessionNotFound));
}

TEST_F(StoredSessionsV1Test, ItsRequestsStayRepeatsBesideNewerOnes) {
  for (int round = 0; round < 2; ++round) {
    const auto a = Get("model/a");
    const ChangeGuard guard{.request_id = absl::StrCat("new ", round)};
    ASSERT_TRUE(SetMode(*a, guard, Mode::kEval).ok());
    EXPECT_EQ(SetMode(*a, guard, Mode::kEval)->generation, 8 + round);
    const ForwardRequest request = Sent(1);
    EXPECT_EQ((*a->Recall(request.guard.request_id, FingerprintOf(request)))->generation, 1);
    ASSERT_TRUE(SetMode(*Get("model/b"), {}, Mode::kShadow).ok());
    Open();
  }
  EXPECT_EQ(Get("model/b")->Observe().observations.shadow, nullptr);
}

TEST_F(StoredSessionsV1Test, ItsShadowMomentsStayThroughAChange) {
  ASSERT_TRUE(SetMode(*Get("model/b"), {}, Mode::kTrain).ok());
  Open();
  ASSERT_NE(Get("model/b")->Observe().observations.shadow, nullptr);
  EXPECT_EQ(Get("model/b")->Observe().observations.shadow->count, 24);
}

TEST_F(StoredSessionsV1Test, ItGoesOnThroughHundredsOfRestarts) {
  constexpr int kRestarts = 300;
  for (int i = 0; i < kRestarts; ++i) {
    const auto session = Get("model/a");
    const ChangeGuard guard{.request_id = absl::StrCat("restart ", i)};
    const ForwardCommit commit{.snapshot = session->Snapshot(),
                               .moments = {.count = 4, .mean = {1, 2, 3}, .m2 = {4, 5, 6}}};
    ASSERT_TRUE(CommitForward(*session, guard, Fingerprint{}, commit).ok());
    if (i % 10 == 0) {
      ASSERT_TRUE(TakeSnapshot(*session, {}, absl::StrCat("s", i)).ok());
    }
    if (i % 3 == 0) {
      OpenAfterCrash();
    } else {
      Open();
    }
    // A reply that was lost.
    if (i % 2 == 0) {
      const auto again = CommitForward(*Get("model/a"), guard, Fingerprint{}, commit);
      ASSERT_TRUE(again.ok()) << again.status();
      ASSERT_EQ(again->num_batches_tracked, 6 + i + 1);
    }
    ASSERT_EQ(Get("model/a")->Snapshot()->num_batches_tracked, 6 + i + 1) << "restart " << i;
  }
  EXPECT_EQ(Get("model/a")->Observe().snapshots->size(), 30u);
  EXPECT_EQ(Get("model/a")->Snapshot()->generation, 7 + kRestarts);
  ASSERT_TRUE(RestoreSnapshot(*Get("model/a"), {}, "s0").ok());
  EXPECT_EQ(Get("model/a")->Snapshot()->num_batches_tracked, 7);
}

}  // namespace
}  // namespace normserve
