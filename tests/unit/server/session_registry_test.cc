#include "server/session/session_registry.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "absl/strings/str_cat.h"
#include "tests/unit/server/answers.h"
#include "tests/unit/server/status_matchers.h"

namespace normserve {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

SessionDraft Draft(std::string name, int64_t num_features = 2) {
  return SessionDraft{.name = std::move(name), .config = {.num_features = num_features}};
}

std::vector<std::string> Names(const SessionPage& page) {
  std::vector<std::string> names;
  for (const auto& session : page.sessions) names.push_back(session.name);
  return names;
}

TEST(SessionRegistry, AnEmptyDraftIsPyTorchsLayer) {
  SessionRegistry registry({});
  ASSERT_TRUE(Create(registry, Draft("a")).ok());
  const auto state = (*registry.Find("a"))->Snapshot();
  EXPECT_EQ(state->mode, Mode::kTrain);
  EXPECT_EQ(state->config.epsilon, 1e-5);
  EXPECT_EQ(state->config.momentum, 0.1);
  EXPECT_EQ(state->parameters->weight, std::vector<float>({1, 1}));
  EXPECT_EQ(state->parameters->bias, std::vector<float>({0, 0}));
  EXPECT_EQ(state->running->mean, std::vector<double>({0, 0}));
  EXPECT_EQ(state->running->variance, std::vector<double>({1, 1}));
  EXPECT_EQ(state->num_batches_tracked, 0);
  EXPECT_EQ(state->generation, 0);
}

TEST(SessionRegistry, EachIllegalFieldIsNamedAndNothingIsMade) {
  struct Case {
    const char* field;
    std::function<void(SessionDraft&)> spoil;
  };
  const Case cases[] = {
      {"name", [](SessionDraft& d) { d.name = "a/"; }},
      {"request_id", [](SessionDraft& d) { d.request_id = std::string(129, 'x'); }},
      {"request_id", [](SessionDraft& d) { d.request_id = "a\nb"; }},
      {"config.num_features", [](SessionDraft& d) { d.config.num_features = 0; }},
      {"config.num_features", [](SessionDraft& d) { d.config.num_features = -1; }},
      {"config.num_features", [](SessionDraft& d) { d.config.num_features = 101; }},
      {"config.num_features", [](SessionDraft& d) { d.config.num_features = std::numeric_limits<int64_t>::max(); }},
      {"config.epsilon", [](SessionDraft& d) { d.config.epsilon = kNaN; }},
      {"config.epsilon", [](SessionDraft& d) { d.config.epsilon = kInfinity; }},
      {"config.epsilon", [](SessionDraft& d) { d.config.epsilon = -1e-9; }},
      {"config.momentum", [](SessionDraft& d) { d.config.momentum = kNaN; }},
      {"config.momentum", [](SessionDraft& d) { d.config.momentum = -kInfinity; }},
      {"parameters.weight", [](SessionDraft& d) { d.parameters.weight = {1}; }},
      {"parameters.weight", [](SessionDraft& d) { d.parameters.weight = {1, INFINITY}; }},
      {"parameters.bias", [](SessionDraft& d) { d.parameters.bias = {1, 2, 3}; }},
      {"parameters.bias", [](SessionDraft& d) { d.parameters.bias = {NAN, 2}; }},
      {"statistics.running_mean", [](SessionDraft& d) { d.statistics.emplace().variance = {1, 1}; }},
      {"statistics.running_mean", [](SessionDraft& d) { d.statistics = {{0, kNaN}, {1, 1}}; }},
      {"statistics.running_var", [](SessionDraft& d) { d.statistics = {{0, 0}, {1, -1}}; }},
      {"statistics.running_var", [](SessionDraft& d) { d.statistics = {{0, 0}, {1}}; }},
      {"statistics.running_mean", [](SessionDraft& d) { d.statistics = {{0, 1e39}, {1, 1}}; }},
      {"statistics.running_var", [](SessionDraft& d) { d.statistics = {{0, 0}, {1, 1e39}}; }},
      {"statistics.num_batches_tracked", [](SessionDraft& d) { d.num_batches_tracked = -1; }},
      {"statistics.num_batches_tracked", [](SessionDraft& d) { d.num_batches_tracked = (int64_t{1} << 62) + 1; }},
      {"statistics.num_batches_tracked",
       [](SessionDraft& d) { d.num_batches_tracked = std::numeric_limits<int64_t>::max(); }},
  };
  SessionRegistry registry({.max_num_features = 100});
  for (const Case& c : cases) {
    SessionDraft draft = Draft("a");
    c.spoil(draft);
    const absl::Status status = Create(registry, draft).status();
    ASSERT_THAT(status, Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kInvalidField)) << c.field;
    EXPECT_EQ(GetErrorDetails(status)->metadata.at("field"), c.field);
  }
  EXPECT_EQ(registry.GetUsage().num_sessions, 0);
}

TEST(SessionRegistry, TheLargestCountOfBatchesIsTakenAndLeavesRoomToCountOn) {
  SessionRegistry registry({});
  SessionDraft draft = Draft("a");
  draft.num_batches_tracked = int64_t{1} << 62;
  ASSERT_TRUE(Create(registry, draft).ok());
  EXPECT_EQ((*registry.Find("a"))->Snapshot()->num_batches_tracked, int64_t{1} << 62);
}

TEST(SessionRegistry, TheSizeOfAStateNeverWrapsRound) {
  EXPECT_GT(StateSizeBytes(int64_t{1} << 28), int64_t{24} << 28);
  for (const int64_t num_features : {int64_t{1} << 59, int64_t{1} << 60, std::numeric_limits<int64_t>::max()}) {
    EXPECT_EQ(StateSizeBytes(num_features), std::numeric_limits<int64_t>::max()) << num_features;
    EXPECT_EQ(SessionSizeBytes(num_features), std::numeric_limits<int64_t>::max()) << num_features;
  }
}

TEST(SessionRegistry, LimitsAreNamedAndDeletingMakesRoom) {
  SessionRegistry registry(
      {.max_sessions = 2, .max_state_bytes = 2 * SessionSizeBytes(2) + 10, .max_num_features = 100});
  ASSERT_TRUE(Create(registry, Draft("a")).ok());
  const absl::Status too_wide = Create(registry, Draft("b", 3)).status();
  EXPECT_THAT(too_wide, Fails(absl::StatusCode::kResourceExhausted, ErrorReason::kLimitReached));
  EXPECT_EQ(GetErrorDetails(too_wide)->metadata.at("limit"), "max_state_bytes");
  ASSERT_TRUE(Create(registry, Draft("b")).ok());
  const absl::Status too_many = Create(registry, Draft("c", 1)).status();
  EXPECT_THAT(too_many, Fails(absl::StatusCode::kResourceExhausted, ErrorReason::kLimitReached));
  EXPECT_EQ(GetErrorDetails(too_many)->metadata.at("limit"), "max_sessions");
  EXPECT_THAT(Clone(registry, "a", {}, "c").status(),
              Fails(absl::StatusCode::kResourceExhausted, ErrorReason::kLimitReached));
  ASSERT_TRUE(Delete(registry, "a", {}).ok());
  EXPECT_EQ(registry.GetUsage().state_bytes, SessionSizeBytes(2));
  EXPECT_TRUE(Create(registry, Draft("c")).ok());
}

TEST(SessionRegistry, ATakenNameIsRefusedAndTheSessionStays) {
  SessionRegistry registry({});
  const auto first = Create(registry, Draft("a"));
  EXPECT_THAT(Create(registry, Draft("a", 5)).status(),
              Fails(absl::StatusCode::kAlreadyExists, ErrorReason::kSessionExists));
  EXPECT_THAT(Clone(registry, "a", {}, "a").status(),
              Fails(absl::StatusCode::kAlreadyExists, ErrorReason::kSessionExists));
  EXPECT_EQ((*registry.Find("a"))->uid(), first->uid);
}

TEST(SessionRegistry, ListsWholeSegmentsInOrderPageByPage) {
  SessionRegistry registry({});
  for (const char* name : {"b", "a/2", "a", "a-b", "a/1", "a/10", "ab/1", "a/2/x", "a.c"}) {
    ASSERT_TRUE(Create(registry, Draft(name)).ok());
  }
  EXPECT_EQ(Names(*registry.List("", 0, "")),
            std::vector<std::string>({"a", "a-b", "a.c", "a/1", "a/10", "a/2", "a/2/x", "ab/1", "b"}));
  for (const char* prefix : {"a", "a/"}) {
    std::vector<std::string> names;
    std::string token;
    int num_pages = 0;
    do {
      const auto page = registry.List(prefix, 2, token);
      ASSERT_TRUE(page.ok());
      for (const std::string& name : Names(*page)) names.push_back(name);
      token = page->next_page_token;
      ++num_pages;
    } while (!token.empty());
    EXPECT_EQ(names, std::vector<std::string>({"a", "a/1", "a/10", "a/2", "a/2/x"})) << prefix;
    EXPECT_EQ(num_pages, 3);
  }
  EXPECT_TRUE(Names(*registry.List("nothing/here", 0, "")).empty());
}

TEST(SessionRegistry, AListingGoesOnAfterASessionThatWasDeleted) {
  SessionRegistry registry({});
  for (const char* name : {"m/1", "m/2", "m/3"}) ASSERT_TRUE(Create(registry, Draft(name)).ok());
  const auto first = registry.List("m", 1, "");
  ASSERT_TRUE(Delete(registry, "m/1", {}).ok());
  EXPECT_EQ(Names(*registry.List("m", 5, first->next_page_token)), std::vector<std::string>({"m/2", "m/3"}));
}

TEST(SessionRegistry, ATokenOfAnotherPrefixAndAPageSizeOutOfRangeAreRefused) {
  SessionRegistry registry({});
  for (const char* name : {"m/1", "m/2", "n/1"}) ASSERT_TRUE(Create(registry, Draft(name)).ok());
  const std::string token = registry.List("m", 1, "")->next_page_token;
  for (const absl::Status& status : {registry.List("n", 1, token).status(), registry.List("m", -1, "").status(),
                                     registry.List("m", 1001, "").status(), registry.List("m//", 1, "").status()}) {
    EXPECT_THAT(status, Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kInvalidField));
  }
}

TEST(SessionRegistry, ARepeatedCreateGivesTheFirstSessionAlsoWithoutAName) {
  SessionRegistry registry({});
  SessionDraft draft = Draft("");
  draft.request_id = "id";
  const auto first = Create(registry, draft), second = Create(registry, draft);
  ASSERT_TRUE(first.ok());
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(first->uid, second->uid);
  EXPECT_EQ(first->name, second->name);
  EXPECT_EQ(registry.GetUsage().num_sessions, 1);
  draft.config.num_features = 3;
  EXPECT_THAT(Create(registry, draft).status(),
              Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kRequestIdReused));
}

TEST(SessionRegistry, ARepeatedCloneOrDeleteGivesTheFirstAnswer) {
  SessionRegistry registry({});
  ASSERT_TRUE(Create(registry, Draft("a")).ok());
  const ChangeGuard clone_guard{.request_id = "clone"}, delete_guard{.request_id = "delete"};
  const auto first_clone = Clone(registry, "a", clone_guard, ""), second_clone = Clone(registry, "a", clone_guard, "");
  EXPECT_EQ(first_clone->uid, second_clone->uid);
  EXPECT_EQ(registry.GetUsage().num_sessions, 2);
  const auto first = Delete(registry, "a", delete_guard), second = Delete(registry, "a", delete_guard);
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(first->uid, second->uid);
  // The repeat does not delete a later session of the same name.
  ASSERT_TRUE(Create(registry, Draft("a")).ok());
  ASSERT_TRUE(Delete(registry, "a", delete_guard).ok());
  EXPECT_TRUE(registry.Find("a").ok());
}

TEST(SessionRegistry, ACloneHasTheSameStateGenerationZeroAndAnotherUid) {
  SessionRegistry registry({});
  SessionDraft draft = Draft("a");
  draft.statistics = NormalizationStatistics{.mean = {0.1, 1e-300}, .variance = {3, 4}};
  draft.num_batches_tracked = 9;
  ASSERT_TRUE(Create(registry, draft).ok());
  ASSERT_TRUE(SetMode(**registry.Find("a"), {}, Mode::kEval).ok());
  const auto clone = Clone(registry, "a", {.expected_generation = 1}, "b");
  ASSERT_TRUE(clone.ok());
  const auto source = (*registry.Find("a"))->Snapshot(), copy = (*registry.Find("b"))->Snapshot();
  EXPECT_EQ(copy->generation, 0);
  EXPECT_NE((*registry.Find("a"))->uid(), clone->uid);
  EXPECT_EQ(copy->mode, Mode::kEval);
  EXPECT_EQ(copy->num_batches_tracked, 9);
  EXPECT_EQ(copy->running->mean, source->running->mean);
  EXPECT_EQ(copy->parameters->weight, source->parameters->weight);
}

TEST(SessionRegistry, GuardsDecideCloneAndDelete) {
  SessionRegistry registry({});
  const auto made = Create(registry, Draft("a"));
  const ChangeGuard wrong_generation{.expected_generation = 1}, wrong_uid{.expected_uid = "no"};
  EXPECT_THAT(Clone(registry, "a", wrong_generation, "b").status(),
              Fails(absl::StatusCode::kAborted, ErrorReason::kGenerationMismatch));
  EXPECT_THAT(Clone(registry, "a", wrong_uid, "b").status(),
              Fails(absl::StatusCode::kAborted, ErrorReason::kUidMismatch));
  EXPECT_THAT(Delete(registry, "a", wrong_generation).status(),
              Fails(absl::StatusCode::kAborted, ErrorReason::kGenerationMismatch));
  EXPECT_THAT(Delete(registry, "a", wrong_uid).status(), Fails(absl::StatusCode::kAborted, ErrorReason::kUidMismatch));
  EXPECT_TRUE(Delete(registry, "a", {.expected_generation = 0, .expected_uid = made->uid}).ok());
  EXPECT_THAT(Delete(registry, "a", {}).status(), Fails(absl::StatusCode::kNotFound, ErrorReason::kSessionNotFound));
}

}  // namespace
}  // namespace normserve
