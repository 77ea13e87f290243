#include "server/session/page_token.h"

#include <gtest/gtest.h>

#include "tests/unit/server/status_matchers.h"

namespace normserve {
namespace {

TEST(PageToken, GivesBackTheNameForItsOwnPrefixOnly) {
  const std::string token = MakePageToken("resnet50", "resnet50/bn1");
  EXPECT_EQ(*ReadPageToken("resnet50", token), "resnet50/bn1");
  EXPECT_THAT(ReadPageToken("resnet", token).status(),
              Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kInvalidField));
}

TEST(PageToken, WhatIsNoTokenIsRefused) {
  for (const char* token : {"", "x", "not base64!", "AAAA", "cmVzbmV0NTAvYm4xcmVzbmV0NTAvYm4x"}) {
    EXPECT_THAT(ReadPageToken("", token).status(),
                Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kInvalidField))
        << token;
  }
}

}  // namespace
}  // namespace normserve
