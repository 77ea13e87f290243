// What an operator meets: health, reflection, information, flags, addresses.
#include <grpcpp/client_context.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "tests/integration/raw_stream.h"
#include "tests/integration/server_process.h"
#include "tests/integration/test_client.h"

namespace normserve::integration {
namespace {

using grpc::StatusCode;

constexpr char kCheck[] = "/grpc.health.v1.Health/Check";
constexpr char kReflection[] = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";
constexpr char kChannelz[] = "/grpc.channelz.v1.Channelz/GetServers";
// ServerReflectionRequest{list_services: ""}.
const std::string kListServices("\x3a\x00", 2);
const std::string kServing = "\x08\x01";

// grpc.health.v1.HealthCheckRequest{service}.
std::string HealthOf(const std::string& service) {
  return service.empty() ? "" : absl::StrCat("\x0a", std::string(1, static_cast<char>(service.size())), service);
}

TEST(Operation, HealthServesTheServerAndTheService) {
  ServerProcess server;
  ASSERT_FALSE(server.address().empty()) << server.Log();
  for (const char* service : {"", "normserve.v1.BatchNormService"}) {
    std::string reply;
    EXPECT_THAT(RawCall(server.channel(), kCheck, HealthOf(service), &reply), Succeeds()) << service;
    EXPECT_EQ(reply, kServing) << service;
  }
  std::string reply;
  EXPECT_EQ(RawCall(server.channel(), kCheck, HealthOf("no.such"), &reply).error_code(), StatusCode::NOT_FOUND);
}

TEST(Operation, ReflectionIsOnAndChannelzOffUnlessToldOtherwise) {
  std::string reply;
  {
    ServerProcess server;
    ASSERT_FALSE(server.address().empty()) << server.Log();
    EXPECT_THAT(RawCall(server.channel(), kReflection, kListServices, &reply), Succeeds());
    EXPECT_TRUE(absl::StrContains(reply, "normserve.v1.BatchNormService"));
    EXPECT_EQ(RawCall(server.channel(), kChannelz, "", &reply).error_code(), StatusCode::UNIMPLEMENTED);
  }
  ServerProcess server({"--no-reflection", "--channelz"});
  ASSERT_FALSE(server.address().empty()) << server.Log();
  EXPECT_EQ(RawCall(server.channel(), kReflection, kListServices, &reply).error_code(), StatusCode::UNIMPLEMENTED);
  EXPECT_THAT(RawCall(server.channel(), kChannelz, "", &reply), Succeeds());
}

TEST(Operation, ServerInfoTellsVersionLimitsAndUse) {
  ServerProcess server({"--max-sessions", "12", "--max-message-bytes", "3MiB", "--max-num-features", "77"});
  ASSERT_FALSE(server.address().empty()) << server.Log();
  TestClient client(server.stub());
  client.Create("a", 2);
  grpc::ClientContext context;
  v1::ServerInfo info;
  ASSERT_THAT(server.stub().GetServerInfo(&context, {}, &info), Succeeds());
  EXPECT_EQ(absl::StrSplit(info.version(), '.').operator std::vector<std::string>().size(), 3u) << info.version();
  EXPECT_GT(info.start_time().seconds(), 1'600'000'000);
  EXPECT_EQ(info.limits().max_sessions(), 12);
  EXPECT_EQ(info.limits().max_message_bytes(), 3 << 20);
  EXPECT_EQ(info.limits().max_num_features(), 77);
  EXPECT_GT(info.limits().max_in_flight_bytes(), 0);
  EXPECT_EQ(info.num_sessions(), 1);
  EXPECT_GT(info.state_bytes(), 2 * 24);
  int num_in_use = 0;
  for (const v1::Device& device : info.devices()) {
    num_in_use += device.in_use() ? 1 : 0;
    EXPECT_FALSE(device.name().empty());
    EXPECT_EQ(device.uuid().size(), 32u) << device.uuid();
    EXPECT_FALSE(device.reason().empty());
  }
  // The reference engine has none.
  EXPECT_EQ(num_in_use, info.devices().empty() ? 0 : 1);
}

TEST(Operation, AnAddressInUseIsNamedAndEndsTheServer) {
  ServerProcess first;
  ASSERT_FALSE(first.address().empty()) << first.Log();
  ServerProcess second({}, first.address());
  EXPECT_TRUE(second.address().empty());
  EXPECT_EQ(second.Wait(), 1);
  EXPECT_TRUE(absl::StrContains(second.Log(), absl::StrCat("cannot listen on ", first.address()))) << second.Log();
}

TEST(Operation, ServesOnAUnixSocketAndOnSeveralAddresses) {
  const std::string path = (std::filesystem::temp_directory_path() / absl::StrCat("normserve-", getpid())).string();
  {
    ServerProcess server({"--listen", "127.0.0.1:0"}, absl::StrCat("unix:", path));
    ASSERT_EQ(server.address(), absl::StrCat("unix:", path)) << server.Log();
    TestClient client(server.stub());
    client.Create("a", 2);
    EXPECT_THAT(client.Forward(MakeForward("a", {2, 2}, {1, 2, 3, 4})), Succeeds());
    EXPECT_TRUE(absl::StrContains(server.Log(), ", 127.0.0.1:")) << server.Log();

    ServerProcess second({}, absl::StrCat("unix:", path));
    EXPECT_EQ(second.Wait(), 1) << "it took the socket over";
    EXPECT_THAT(client.Forward(MakeForward("a", {2, 2}, {1, 2, 3, 4})), Succeeds());
  }
  std::filesystem::remove(path);
}

TEST(Operation, JsonLogLinesAreObjectsAndFailedCallsAreLogged) {
  ServerProcess server({"--log-format", "json", "--log-level", "debug"});
  ASSERT_FALSE(server.address().empty()) << server.Log();
  TestClient client(server.stub());
  EXPECT_FALSE(client.Forward(MakeForward("no \"such\"\n", {2, 2}, {1, 2, 3, 4})).ok());
  bool found = false;
  const std::vector<std::string> lines = absl::StrSplit(server.Log(), '\n', absl::SkipEmpty());
  for (const std::string& line : lines) {
    EXPECT_TRUE(absl::StartsWith(line, "{\"time\":\"")) << line;
    EXPECT_TRUE(absl::EndsWith(line, "}")) << line;
    found = found || (absl::StrContains(line, "Forward") && absl::StrContains(line, "INVALID_ARGUMENT"));
  }
  EXPECT_TRUE(found) << server.Log();
}

}  // namespace
}  // namespace normserve::integration
