#include "server/session/page_token.h"

#include <gtest/gtest.h>

#include "tests/unit/server/status_matchers.h"

namespace normserve {
namespace {

TEST(PageToken, GivesBackTheNameForItsOwnPrefixOnly) {
  const std::string token = MakePageToken(Listing::kSessions, "resnet50", "resnet50/bn1");
  EXPECT_EQ(*ReadPageToken(Listing::kSessions, "resnet50", token), "resnet50/bn1");
  EXPECT_THAT(ReadPageToken(Listing::kSessions, "resnet", token).status(),
              Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kInvalidField));
}

TEST(PageToken, OfSnapshotsIsAnotherThanOfSessionsAndSaysSo) {
  const std::string token = MakePageToken(Listing::kSnapshots, "a", "s1");
  EXPECT_EQ(*ReadPageToken(Listing::kSnapshots, "a", token), "s1");
  EXPECT_FALSE(ReadPageToken(Listing::kSessions, "a", token).ok());
  const absl::Status status = ReadPageToken(Listing::kSnapshots, "b", token).status();
  EXPECT_THAT(status, Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kInvalidField));
  EXPECT_THAT(std::string(status.message()),
              testing::EndsWith("is no next_page_token of a listing of the snapshots of \"b\": send the token "
                                "with the name it came for"));
}

TEST(PageToken, WhatIsNoTokenIsRefused) {
  for (const char* token : {"", "x", "not base64!", "AAAA", "cmVzbmV0NTAvYm4xcmVzbmV0NTAvYm4x"}) {
    EXPECT_THAT(ReadPageToken(Listing::kSessions, "", token).status(),
                Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kInvalidField))
        << token;
  }
}

}  // namespace
}  // namespace normserve
