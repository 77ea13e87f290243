#include "server/session/session_name.h"

#include <gtest/gtest.h>

#include "tests/unit/server/status_matchers.h"

namespace normserve {
namespace {

std::string Segments(int count) {
  std::string name = "a";
  for (int i = 1; i < count; ++i) name += "/a";
  return name;
}

TEST(SessionName, LegalNamesPass) {
  for (const std::string& name :
       {std::string("a"), std::string("_"), std::string("0"), std::string("resnet50/layer1.0.bn1"),
        std::string("A-b_c.d"), std::string(63, 'x'), Segments(16),
        std::string(63, 'x') + "/" + std::string(63, 'y') + "/" + std::string(63, 'z') + "/" + std::string(63, 'w')}) {
    EXPECT_TRUE(CheckSessionName("name", name).ok()) << name;
  }
}

TEST(SessionName, IllegalNamesAreRefusedAndTheFieldNamed) {
  for (const std::string& name :
       {std::string(), std::string("/"), std::string("a/"), std::string("/a"), std::string("a//b"), std::string(".a"),
        std::string("-a"), std::string("a b"), std::string("a\n"), std::string("a\0b", 3), std::string("\xc3\xa9"),
        std::string("a:b"), std::string(64, 'x'), Segments(17), std::string("../etc"), std::string(256, 'a')}) {
    const absl::Status status = CheckSessionName("clone_name", name);
    EXPECT_THAT(status, Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kInvalidField)) << name;
    EXPECT_EQ(GetErrorDetails(status)->metadata.at("field"), "clone_name");
  }
}

TEST(SessionName, MadeNamesAreLegalAndDiffer) {
  const std::string first = MakeSessionName(), second = MakeSessionName();
  EXPECT_TRUE(CheckSessionName("name", first).ok()) << first;
  EXPECT_NE(first, second);
  EXPECT_EQ(MakeSessionUid().size(), 32u);
}

}  // namespace
}  // namespace normserve
