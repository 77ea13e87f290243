#include "server/server_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include "absl/strings/str_cat.h"

namespace normserve {
namespace {

std::variant<ServerOptions, ExitCode> Parse(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "normserve-server");
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  return ParseServerOptions(static_cast<int>(argv.size()), argv.data());
}

TEST(ServerOptions, ListensOnLoopbackByDefault) {
  const auto options = std::get<ServerOptions>(Parse({}));
  EXPECT_EQ(options.listen, std::vector<std::string>({"127.0.0.1:8001"}));
  EXPECT_EQ(options.max_message_bytes, 256 << 20);
  EXPECT_EQ(options.session_limits.max_num_features, 1'000'000);
  EXPECT_EQ(options.drain_timeout, absl::Seconds(30));
  EXPECT_TRUE(options.reflection);
  EXPECT_FALSE(options.channelz);
  EXPECT_EQ(options.admin_listen, "");
}

TEST(ServerOptions, TheAdminPortIsAnAddressWithAPort) {
  const auto options = std::get<ServerOptions>(
      Parse({"--admin-listen", "[::1]:0", "--admin-host", "a.example", "--admin-host", "b.example"}));
  EXPECT_EQ(options.admin_listen, "[::1]:0");
  EXPECT_EQ(options.admin_hosts, std::vector<std::string>({"a.example", "b.example"}));
  EXPECT_EQ(options.admin_max_session_gauges, 200);
  for (const char* const wrong : {"8002", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:65536", ":8002", "unix:/tmp/s"}) {
    EXPECT_TRUE(std::holds_alternative<ExitCode>(Parse({"--admin-listen", wrong}))) << wrong;
  }
}

TEST(ServerOptions, ReadsFlagsWithUnits) {
  const auto options = std::get<ServerOptions>(Parse(
      {"--listen", "127.0.0.1:0", "--listen", "unix:/tmp/s", "--max-message-bytes", "2MiB", "--max-in-flight-bytes",
       "3145728", "--drain-timeout", "250ms", "--no-reflection", "--channelz", "--max-sessions", "7"}));
  EXPECT_EQ(options.listen, std::vector<std::string>({"127.0.0.1:0", "unix:/tmp/s"}));
  EXPECT_EQ(options.max_message_bytes, 2 << 20);
  EXPECT_EQ(options.max_in_flight_bytes, 3 << 20);
  EXPECT_EQ(options.drain_timeout, absl::Milliseconds(250));
  EXPECT_FALSE(options.reflection);
  EXPECT_TRUE(options.channelz);
  EXPECT_EQ(options.session_limits.max_sessions, 7);
}

TEST(ServerOptions, TheEnvironmentStandsInForAFlagThatIsNotGiven) {
  setenv("NORMSERVE_MAX_SESSIONS", "5", 1);
  setenv("NORMSERVE_REFLECTION", "false", 1);
  setenv("NORMSERVE_LISTEN", "127.0.0.1:1,127.0.0.1:2", 1);
  EXPECT_EQ(std::get<ServerOptions>(Parse({})).session_limits.max_sessions, 5);
  EXPECT_EQ(std::get<ServerOptions>(Parse({"--max-sessions", "6"})).session_limits.max_sessions, 6);
  EXPECT_FALSE(std::get<ServerOptions>(Parse({})).reflection);
  EXPECT_EQ(std::get<ServerOptions>(Parse({})).listen.size(), 2u);
  unsetenv("NORMSERVE_MAX_SESSIONS");
  unsetenv("NORMSERVE_REFLECTION");
  unsetenv("NORMSERVE_LISTEN");
}

TEST(ServerOptions, WrongFlagsEndTheProcessWithAnError) {
  for (const std::vector<std::string>& arguments :
       std::vector<std::vector<std::string>>{{"--no-such-flag"},
                                             {"--drain-timeout", "soon"},
                                             {"--drain-timeout", "-1s"},
                                             {"--max-sessions", "0"},
                                             {"--max-message-bytes", "3GiB"},
                                             {"--max-message-bytes", "2MiB", "--max-in-flight-bytes", "1MiB"},
                                             {"--max-message-bytes", "0"},
                                             {"--max-message-bytes", "-5"},
                                             {"--max-in-flight-bytes", "0"},
                                             {"--max-in-flight-bytes", "-5"},
                                             {"--max-state-bytes", "0"},
                                             {"--max-state-bytes", "-5"},
                                             {"--max-num-features", "268435457"},
                                             {"--max-num-features", "9223372036854775807"},
                                             {"--log-format", "xml"},
                                             {"stray"}}) {
    const auto parsed = Parse(arguments);
    ASSERT_TRUE(std::holds_alternative<ExitCode>(parsed)) << ::testing::PrintToString(arguments);
    EXPECT_NE(std::get<ExitCode>(parsed).value, 0);
  }
  EXPECT_EQ(std::get<ExitCode>(Parse({"--help"})).value, 0);
  EXPECT_EQ(std::get<ExitCode>(Parse({"--version"})).value, 0);
}

TEST(ServerOptions, AnAddressThatNamesNoHostOrPortIsRefusedWithWhatWouldBeRight) {
  for (const char* address : {"", "127.0.0.1", "127.0.0.1:", ":99999", ":0", "127.0.0.1:65536", "127.0.0.1:-1",
                              "127.0.0.1:+1", "127.0.0.1:http", "127.0.0.1: 1", "::1:80", "::1", "[]:80", "[::1:80",
                              "::1]:80", "unix:", "unix-abstract:", "http://localhost:80"}) {
    const std::string listen = absl::StrCat("--listen=", address);
    ::testing::internal::CaptureStderr();
    const auto parsed = Parse({listen});
    const std::string said = ::testing::internal::GetCapturedStderr();
    ASSERT_TRUE(std::holds_alternative<ExitCode>(parsed)) << listen;
    EXPECT_EQ(std::get<ExitCode>(parsed).value, 2) << listen;
    if (*address == '\0') continue;
    EXPECT_THAT(said, ::testing::HasSubstr(absl::StrCat("\"", address, "\""))) << listen;
    EXPECT_THAT(said, ::testing::HasSubstr("HOST:PORT")) << listen;
  }
  setenv("NORMSERVE_LISTEN", "127.0.0.1:1,127.0.0.1", 1);
  EXPECT_TRUE(std::holds_alternative<ExitCode>(Parse({})));
  unsetenv("NORMSERVE_LISTEN");
}

TEST(ServerOptions, EveryKindOfAddressIsTaken) {
  for (const char* address : {"127.0.0.1:0", "localhost:65535", "[::1]:0", "[::]:8001", "[fe80::1%eth0]:1", "*:8001",
                              "unix:/tmp/s", "unix:s", "unix:///tmp/s", "unix-abstract:name"}) {
    const auto parsed = Parse({"--listen", address});
    ASSERT_TRUE(std::holds_alternative<ServerOptions>(parsed)) << address;
    EXPECT_EQ(std::get<ServerOptions>(parsed).listen, std::vector<std::string>({address}));
  }
}

TEST(ServerOptions, TheHelpNamesEveryKeyOfADeviceMask) {
  ::testing::internal::CaptureStdout();
  Parse({"--help"});
  const std::string help = ::testing::internal::GetCapturedStdout();
  for (const char* key :
       {"max_storage_buffer_range=", "max_allocation_size=", "max_workgroup_invocations=", "max_workgroup_count=",
        "max_shared_memory_bytes=", "staging", "no_push_descriptors", "no_float_controls"}) {
    EXPECT_THAT(help, ::testing::HasSubstr(key));
  }
}

}  // namespace
}  // namespace normserve
