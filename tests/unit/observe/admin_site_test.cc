#include "server/observe/admin_site.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>

namespace normserve {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

class Site : public ::testing::Test {
 protected:
  HttpReply Get(const std::string& path) { return site_.Answer({.path = path, .query = {}}); }

  CallMetrics calls_;
  SessionRegistry registry_{{}};
  std::shared_ptr<CallGate> gate_ = std::make_shared<CallGate>(1000, &calls_);
  SavedForwardCache saved_forwards_{100};
  ServerDescription server_{.version = "1.2",
                            .start_time = absl::FromUnixSeconds(5),
                            .devices = {{.name = "a \"b\"\n# c\\d", .in_use = true}}};
  AdminSite site_{{calls_, registry_, *gate_, saved_forwards_, server_}, 10};
};

TEST_F(Site, HealthTellsThatTheServerDrains) {
  EXPECT_EQ(Get("/healthz").status, 200);
  EXPECT_THAT(Get("/metrics").body, HasSubstr("\nnormserve_draining 0\n"));
  gate_->StartDraining();
  EXPECT_EQ(Get("/healthz").status, 503);
  EXPECT_EQ(Get("/healthz").body, "draining\n");
  EXPECT_THAT(Get("/metrics").body, HasSubstr("\nnormserve_draining 1\n"));
  EXPECT_THAT(Get("/api/models").body, HasSubstr("\"is_draining\":true"));
}

TEST_F(Site, TellsCallsAndBytesInWork) {
  const auto call = gate_->Enter();
  const auto bytes = gate_->TakeBytes(400);
  ASSERT_TRUE(call.ok() && bytes.ok());
  const std::string text = Get("/metrics").body;
  EXPECT_THAT(text, HasSubstr("\nnormserve_calls_in_work 1\n"));
  EXPECT_THAT(text, HasSubstr("\nnormserve_in_flight_bytes 400\n"));
  EXPECT_THAT(text, HasSubstr("\nnormserve_max_in_flight_bytes 1000\n"));
  EXPECT_THAT(text, HasSubstr("\nnormserve_start_timestamp_seconds 5\n"));
}

TEST_F(Site, ADevicesNameCannotAddALineToTheMetrics) {
  EXPECT_THAT(Get("/metrics").body, HasSubstr(R"(device="a \"b\"\n# c\\d")"));
}

TEST_F(Site, FilesComeWithTheirTypesAndWithoutAnEnd) {
  const HttpReply page = Get("/");
  EXPECT_EQ(page.content_type, "text/html; charset=utf-8");
  EXPECT_THAT(page.body, StartsWith("<!DOCTYPE html>"));
  EXPECT_EQ(page.body.back(), '\n');
  // The content security policy would not let them run.
  EXPECT_THAT(page.body, Not(HasSubstr("style=")));
  EXPECT_THAT(page.body, Not(HasSubstr("<script>")));
  EXPECT_EQ(Get("/page.js").content_type, "text/javascript; charset=utf-8");
  EXPECT_EQ(Get("/page.css").content_type, "text/css; charset=utf-8");
  EXPECT_EQ(Get("/icon.svg").content_type, "image/svg+xml");
}

TEST_F(Site, OtherPathsAreNotFound) {
  for (const char* const path : {"", "/x", "/index.html", "/api", "/api/models/", "/../page.js", "/metrics/"}) {
    EXPECT_NE(Get(path).status, 200) << path;
  }
}

}  // namespace
}  // namespace normserve
