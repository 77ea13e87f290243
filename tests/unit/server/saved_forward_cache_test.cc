#include "server/session/saved_forward_cache.h"

#include <gtest/gtest.h>

#include "tests/unit/server/status_matchers.h"

namespace normserve {
namespace {

class Kept final : public KeptInput {
 public:
  Kept(int64_t size_bytes, int& alive) : KeptInput({}, ElementType::kFloat32, size_bytes), alive_(alive) { ++alive_; }
  ~Kept() override { --alive_; }

 private:
  int& alive_;
};

class SavedForwardCacheTest : public testing::Test {
 protected:
  std::string Keep(int64_t size_bytes) {
    return cache_.Keep({.session_uid = "uid", .input = std::make_shared<Kept>(size_bytes, alive_)});
  }
  bool IsHere(const std::string& token) { return cache_.Find(token, "uid").ok(); }

  absl::Time now_ = absl::UnixEpoch();
  int alive_ = 0;
  SavedForwardCache cache_{100, absl::Minutes(10), [this] { return now_; }};
};

TEST_F(SavedForwardCacheTest, ATokenWorksAsOftenAsItIsAskedForAndForItsSessionOnly) {
  const std::string token = Keep(10), other = Keep(10);
  EXPECT_EQ(token.size(), 32u);
  EXPECT_NE(token, other);
  EXPECT_EQ(cache_.Find(token, "uid")->input->size_bytes(), 10);
  EXPECT_TRUE(IsHere(token));
  EXPECT_THAT(cache_.Find(token, "another").status(),
              Fails(absl::StatusCode::kFailedPrecondition, ErrorReason::kTokenDropped));
  EXPECT_THAT(cache_.Find("never", "uid").status(),
              Fails(absl::StatusCode::kFailedPrecondition, ErrorReason::kTokenDropped));
}

TEST_F(SavedForwardCacheTest, TheLeastRecentlyUsedGoesFirst) {
  const std::string a = Keep(40), b = Keep(40);
  EXPECT_TRUE(IsHere(a));
  const std::string c = Keep(40);
  EXPECT_TRUE(IsHere(a));
  EXPECT_FALSE(IsHere(b));
  EXPECT_TRUE(IsHere(c));
  EXPECT_EQ(cache_.size_bytes(), 80);
  EXPECT_EQ(alive_, 2);
}

TEST_F(SavedForwardCacheTest, WhatIsLargerThanAllTheRoomIsNotKeptAndDropsNothing) {
  const std::string a = Keep(40);
  EXPECT_EQ(Keep(101), "");
  EXPECT_TRUE(IsHere(a));
  EXPECT_EQ(alive_, 1);
}

TEST_F(SavedForwardCacheTest, AReleasedTokenWorksForHalfAMinuteMore) {
  const std::string token = Keep(10);
  cache_.Release(token);
  now_ += absl::Seconds(29);
  EXPECT_TRUE(IsHere(token));  // which does not prolong it
  cache_.Release(token);       // nor does this
  now_ += absl::Seconds(1);
  EXPECT_FALSE(IsHere(token));
  EXPECT_EQ(alive_, 0);
}

TEST_F(SavedForwardCacheTest, AnUnusedTokenGoesAfterItsTime) {
  const std::string used = Keep(10), unused = Keep(10);
  now_ += absl::Minutes(9);
  EXPECT_TRUE(IsHere(used));
  now_ += absl::Minutes(9);
  EXPECT_TRUE(IsHere(used));
  EXPECT_FALSE(IsHere(unused));
  EXPECT_EQ(cache_.size_bytes(), 10);
}

TEST_F(SavedForwardCacheTest, ClearDropsAllAndWhatIsInUseLivesOn) {
  const std::string token = Keep(10);
  const SavedForward in_use = *cache_.Find(token, "uid");
  cache_.Clear();
  EXPECT_FALSE(IsHere(token));
  EXPECT_EQ(cache_.size_bytes(), 0);
  EXPECT_EQ(alive_, 1);
}

}  // namespace
}  // namespace normserve
