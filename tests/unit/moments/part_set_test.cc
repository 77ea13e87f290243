#include "server/moments/part_set.h"

#include <gtest/gtest.h>

#include <limits>

#include "tests/unit/server/status_matchers.h"

namespace normserve {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

Moments Sound() { return {.count = 3, .mean = {1, 2}, .m2 = {3, 4}}; }

TEST(PartSet, APartSentAgainCountsOnce) {
  PartSet parts(2);
  EXPECT_TRUE(parts.Add("a", Sound()).ok());
  EXPECT_TRUE(parts.Add("a", Sound()).ok());
  EXPECT_EQ(parts.count(), 3);
  EXPECT_EQ(parts.parts().size(), 1u);
}

TEST(PartSet, AnotherPartUnderTheSameIdIsRefusedByName) {
  PartSet parts(2);
  ASSERT_TRUE(parts.Add("site-7", Sound()).ok());
  Moments other = Sound();
  other.m2[1] = std::nextafter(4, 5);
  const absl::Status status = parts.Add("site-7", other);
  EXPECT_THAT(status, Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kInvalidField));
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("\"site-7\""));
  EXPECT_EQ(GetErrorDetails(status)->metadata["part"], "site-7");
  EXPECT_EQ(parts.parts().at("site-7").m2[1], 4);
}

TEST(PartSet, AnEmptyPartContributesNothing) {
  PartSet parts(2);
  EXPECT_TRUE(parts.Add("idle", {}).ok());
  EXPECT_EQ(parts.count(), 0);
  EXPECT_EQ(parts.parts().size(), 1u);
}

TEST(PartSet, UnsoundPartsAreRefusedAndLeaveNoTrace) {
  struct Case {
    const char* why;
    Moments moments;
    ErrorReason reason;
    const char* says;
  };
  const Case cases[] = {
      {"negative m2",
       {.count = 3, .mean = {1, 2}, .m2 = {3, -1e-300}},
       ErrorReason::kInvalidField,
       "m2 of channel 1 is -1e-300"},
      {"negative count", {.count = -2, .mean = {1, 2}, .m2 = {3, 4}}, ErrorReason::kInvalidField, "count is -2"},
      {"values without count", {.count = 0, .mean = {1, 2}, .m2 = {3, 4}}, ErrorReason::kInvalidField, "count is 0"},
      {"m2 without count", {.count = 0, .m2 = {3, 4}}, ErrorReason::kInvalidField, "count is 0"},
      {"short mean", {.count = 3, .mean = {1}, .m2 = {3, 4}}, ErrorReason::kShapeMismatch, "mean has 1 values"},
      {"long m2", {.count = 3, .mean = {1, 2}, .m2 = {3, 4, 5}}, ErrorReason::kShapeMismatch, "m2 has 3 values"},
      {"NaN mean", {.count = 3, .mean = {kNaN, 2}, .m2 = {3, 4}}, ErrorReason::kNonFinite, "mean of channel 0 is nan"},
      {"infinite m2",
       {.count = 3, .mean = {1, 2}, .m2 = {3, std::numeric_limits<double>::infinity()}},
       ErrorReason::kNonFinite,
       "m2 of channel 1 is inf"},
      {"one value that spreads",
       {.count = 1, .mean = {1, 2}, .m2 = {0, 4}},
       ErrorReason::kInvalidField,
       "with count 1 it is 0"},
      {"beyond 2^53", {.count = kMaxCount + 1, .mean = {1, 2}, .m2 = {3, 4}}, ErrorReason::kInvalidField, "0 to 2^53"},
  };
  for (const Case& tested : cases) {
    PartSet parts(2);
    const absl::Status status = parts.Add("worker/4", tested.moments);
    EXPECT_THAT(status, Fails(absl::StatusCode::kInvalidArgument, tested.reason)) << tested.why;
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr(tested.says)) << tested.why;
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr("\"worker/4\"")) << tested.why;
    EXPECT_TRUE(parts.parts().empty()) << tested.why;
    EXPECT_EQ(parts.count(), 0) << tested.why;
  }
  PartSet parts(2);
  EXPECT_THAT(parts.Add("", Sound()), Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kInvalidField));
}

TEST(PartSet, CountsAddUpToWhatADoubleCounts) {
  PartSet parts(1);
  ASSERT_TRUE(parts.Add("most", {.count = kMaxCount - 1, .mean = {0}, .m2 = {0}}).ok());
  EXPECT_THAT(parts.Add("two", {.count = 2, .mean = {0}, .m2 = {0}}),
              Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kInvalidField));
  EXPECT_TRUE(parts.Add("one", {.count = 1, .mean = {0}, .m2 = {0}}).ok());
  PartSet other(1);
  ASSERT_TRUE(other.Add("three", {.count = 1, .mean = {0}, .m2 = {0}}).ok());
  EXPECT_THAT(parts.Merge(other), Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kInvalidField));
  EXPECT_EQ(parts.count(), kMaxCount);
}

TEST(PartSet, MergesWholeSetsOrNothing) {
  PartSet left(2), right(2);
  ASSERT_TRUE(left.Add("a", Sound()).ok());
  ASSERT_TRUE(left.Add("shared", Sound()).ok());
  ASSERT_TRUE(right.Add("shared", Sound()).ok());
  ASSERT_TRUE(right.Add("b", Sound()).ok());
  ASSERT_TRUE(left.Merge(right).ok());
  EXPECT_EQ(left.count(), 9);
  EXPECT_EQ(left.parts().size(), 3u);

  PartSet conflicting(2);
  ASSERT_TRUE(conflicting.Add("0", Sound()).ok());
  ASSERT_TRUE(conflicting.Add("a", {.count = 4, .mean = {1, 2}, .m2 = {3, 4}}).ok());
  EXPECT_THAT(left.Merge(conflicting), Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kInvalidField));
  EXPECT_EQ(left.count(), 9);
  EXPECT_EQ(left.parts().size(), 3u);
  EXPECT_THAT(left.Merge(PartSet(3)), Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kShapeMismatch));
}

TEST(PartSet, SizeGrowsWithChannelsAndParts) {
  PartSet parts(2);
  ASSERT_TRUE(parts.Add("a", Sound()).ok());
  const int64_t one = parts.SizeBytes();
  EXPECT_GE(one, 32);
  ASSERT_TRUE(parts.Add("b", Sound()).ok());
  EXPECT_EQ(parts.SizeBytes(), 2 * one);
}

}  // namespace
}  // namespace normserve
