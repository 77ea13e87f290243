#include "server/session/request_memory.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "tests/unit/server/status_matchers.h"

namespace normserve {
namespace {

constexpr Fingerprint kPayload{.low = 1, .high = 2};
constexpr Fingerprint kOtherPayload{.low = 1, .high = 3};

std::shared_ptr<const AffineParameters> Parameters(size_t num_features) {
  return std::make_shared<const AffineParameters>(
      AffineParameters{std::vector<float>(num_features), std::vector<float>(num_features)});
}

std::shared_ptr<const NormalizationStatistics> Statistics(size_t num_features) {
  return std::make_shared<const NormalizationStatistics>(
      NormalizationStatistics{std::vector<double>(num_features), std::vector<double>(num_features)});
}

// As a caller sees it who wants an answer of this kind; nothing if it is not remembered.
template <typename Kind>
absl::StatusOr<std::optional<Kind>> Find(const RequestMemory& memory, const std::string& id,
                                         const Fingerprint& fingerprint) {
  const auto found = memory.Find(id, fingerprint);
  if (!found.ok()) return found.status();
  if (*found == nullptr) return std::nullopt;
  auto answer = AnswerAs<Kind>(**found, id);
  if (!answer.ok()) return answer.status();
  return *std::move(answer);
}

TEST(RequestMemory, GivesTheFirstAnswerForTheSamePayload) {
  RequestMemory memory(10, {.max_bytes = 1000});
  memory.Remember("id", kPayload, Deletion{.uid = "u", .generation = 7});
  const auto found = Find<Deletion>(memory, "id", kPayload);
  ASSERT_TRUE(found.ok());
  ASSERT_TRUE(found->has_value());
  EXPECT_EQ((*found)->generation, 7);
  EXPECT_EQ(*Find<Deletion>(memory, "other id", kPayload), std::nullopt);
}

TEST(RequestMemory, AnotherPayloadOrAnotherKindOfRequestIsRefused) {
  RequestMemory memory(10, {.max_bytes = 1000});
  memory.Remember("id", kPayload, Deletion{});
  EXPECT_THAT(Find<Deletion>(memory, "id", kOtherPayload).status(),
              Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kRequestIdReused));
  EXPECT_THAT(Find<ForwardAnswer>(memory, "id", kPayload).status(),
              Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kRequestIdReused));
}

TEST(RequestMemory, TheEmptyIdIsNeverRemembered) {
  RequestMemory memory(10, {.max_bytes = 1000});
  memory.Remember("", kPayload, Deletion{});
  memory.Remember("", kPayload, Deletion{});
  EXPECT_EQ(memory.size(), 0u);
  EXPECT_FALSE(memory.Contains(""));
}

TEST(RequestMemory, ForgetsTheOldestRequestsFirst) {
  RequestMemory memory(1024, {.max_bytes = 1000});
  for (int i = 0; i < 1025; ++i) memory.Remember(absl::StrCat(i), kPayload, Deletion{});
  EXPECT_FALSE(memory.Contains("0"));
  EXPECT_TRUE(memory.Contains("1"));
  EXPECT_TRUE(memory.Contains("1024"));
  EXPECT_EQ(memory.size(), 1024u);
}

TEST(RequestMemory, SharedVectorsCountOnce) {
  RequestMemory memory(1024, {.max_bytes = 80});
  const auto parameters = Parameters(10);  // 80 bytes
  for (int i = 0; i < 100; ++i) memory.Remember(absl::StrCat(i), kPayload, ForwardAnswer{.parameters = parameters});
  EXPECT_EQ(memory.vector_bytes(), 80);
  EXPECT_NE((*Find<ForwardAnswer>(memory, "0", kPayload))->parameters, nullptr);
}

TEST(RequestMemory, DropsTheVectorsOfTheOldestAboveItsBytesButNotTheRequests) {
  RequestMemory memory(1024, {.max_bytes = 3 * 160});
  for (int i = 0; i < 10; ++i) {
    memory.Remember(absl::StrCat(i), kPayload, ForwardAnswer{.generation = i, .running = Statistics(10)});  // 160 bytes
  }
  EXPECT_EQ(memory.vector_bytes(), 3 * 160);
  EXPECT_EQ(memory.size(), 10u);
  EXPECT_EQ((*Find<ForwardAnswer>(memory, "6", kPayload))->running, nullptr);
  EXPECT_EQ((*Find<ForwardAnswer>(memory, "6", kPayload))->generation, 6);
  EXPECT_NE((*Find<ForwardAnswer>(memory, "7", kPayload))->running, nullptr);
}

TEST(RequestMemory, ForgettingARequestGivesItsVectorsBack) {
  RequestMemory memory(2, {.max_bytes = 1000});
  for (int i = 0; i < 10; ++i) memory.Remember(absl::StrCat(i), kPayload, ForwardAnswer{.parameters = Parameters(10)});
  EXPECT_EQ(memory.vector_bytes(), 2 * 80);
}

TEST(RequestMemory, KeepsOnlyTheNewestWhileOthersKeepTooMuch) {
  const auto budget = std::make_shared<VectorBudget>(1000);
  RequestMemory memory(1024, {.max_bytes = 1000, .scarce_bytes = 160, .budget = budget});
  const auto remember = [&memory](const std::string& id) {
    memory.Remember(id, kPayload,
                    ForwardAnswer{.normalized_with = NormalizedWith::kRunning, .running = Statistics(10)});
  };
  remember("1");
  remember("2");
  EXPECT_EQ(budget->bytes(), 320);
  {
    RequestMemory other(1024, {.max_bytes = 1000, .scarce_bytes = 160, .budget = budget});
    other.Remember("big", kPayload,
                   ForwardAnswer{.normalized_with = NormalizedWith::kRunning, .running = Statistics(45)});
    EXPECT_EQ(budget->bytes(), 320 + 0) << "more than its share, so not kept";
    for (int i = 0; i < 5; ++i) {
      other.Remember(absl::StrCat(i), kPayload,
                     ForwardAnswer{.normalized_with = NormalizedWith::kRunning, .running = Statistics(9)});
    }
    EXPECT_LE(budget->bytes(), 1000);
    budget->Take(1000);
    remember("3");
    EXPECT_EQ(memory.vector_bytes(), 160);
    EXPECT_NE((*Find<ForwardAnswer>(memory, "3", kPayload))->running, nullptr);
    EXPECT_EQ((*Find<ForwardAnswer>(memory, "2", kPayload))->running, nullptr);
    budget->Give(1000);
  }
  EXPECT_EQ(budget->bytes(), 160) << "a memory that is gone gives its bytes back";
}

}  // namespace
}  // namespace normserve
