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

TEST(RequestMemory, GivesTheFirstAnswerForTheSamePayload) {
  RequestMemory memory(10, 1000);
  memory.Remember("id", kPayload, Deletion{.uid = "u", .generation = 7});
  const auto found = memory.Find<Deletion>("id", kPayload);
  ASSERT_TRUE(found.ok());
  ASSERT_NE(*found, nullptr);
  EXPECT_EQ((*found)->generation, 7);
  EXPECT_EQ(*memory.Find<Deletion>("other id", kPayload), nullptr);
}

TEST(RequestMemory, AnotherPayloadOrAnotherKindOfRequestIsRefused) {
  RequestMemory memory(10, 1000);
  memory.Remember("id", kPayload, Deletion{});
  EXPECT_THAT(memory.Find<Deletion>("id", kOtherPayload).status(),
              Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kRequestIdReused));
  EXPECT_THAT(memory.Find<ForwardAnswer>("id", kPayload).status(),
              Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kRequestIdReused));
}

TEST(RequestMemory, TheEmptyIdIsNeverRemembered) {
  RequestMemory memory(10, 1000);
  memory.Remember("", kPayload, Deletion{});
  memory.Remember("", kPayload, Deletion{});
  EXPECT_EQ(memory.size(), 0u);
  EXPECT_FALSE(memory.Contains(""));
}

TEST(RequestMemory, ForgetsTheOldestRequestsFirst) {
  RequestMemory memory(1024, 1000);
  for (int i = 0; i < 1025; ++i) memory.Remember(absl::StrCat(i), kPayload, Deletion{});
  EXPECT_FALSE(memory.Contains("0"));
  EXPECT_TRUE(memory.Contains("1"));
  EXPECT_TRUE(memory.Contains("1024"));
  EXPECT_EQ(memory.size(), 1024u);
}

TEST(RequestMemory, SharedVectorsCountOnce) {
  RequestMemory memory(1024, 80);
  const auto parameters = Parameters(10);  // 80 bytes
  for (int i = 0; i < 100; ++i) memory.Remember(absl::StrCat(i), kPayload, ForwardAnswer{.parameters = parameters});
  EXPECT_EQ(memory.vector_bytes(), 80);
  EXPECT_NE((*memory.Find<ForwardAnswer>("0", kPayload))->parameters, nullptr);
}

TEST(RequestMemory, DropsTheVectorsOfTheOldestAboveItsBytesButNotTheRequests) {
  RequestMemory memory(1024, 3 * 160);
  for (int i = 0; i < 10; ++i) {
    memory.Remember(absl::StrCat(i), kPayload, ForwardAnswer{.generation = i, .running = Statistics(10)});  // 160 bytes
  }
  EXPECT_EQ(memory.vector_bytes(), 3 * 160);
  EXPECT_EQ(memory.size(), 10u);
  EXPECT_EQ((*memory.Find<ForwardAnswer>("6", kPayload))->running, nullptr);
  EXPECT_EQ((*memory.Find<ForwardAnswer>("6", kPayload))->generation, 6);
  EXPECT_NE((*memory.Find<ForwardAnswer>("7", kPayload))->running, nullptr);
}

TEST(RequestMemory, ForgettingARequestGivesItsVectorsBack) {
  RequestMemory memory(2, 1000);
  for (int i = 0; i < 10; ++i) memory.Remember(absl::StrCat(i), kPayload, ForwardAnswer{.parameters = Parameters(10)});
  EXPECT_EQ(memory.vector_bytes(), 2 * 80);
}

}  // namespace
}  // namespace normserve
