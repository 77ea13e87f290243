// What the server is started with: flags, and the environment where a flag is not given.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "absl/time/time.h"
#include "server/session/session_registry.h"

namespace normserve {

struct ServerOptions {
  // Addresses: HOST:PORT (port 0: a free one), unix:PATH or unix-abstract:NAME.
  std::vector<std::string> listen = {"127.0.0.1:8001"};
  std::string port_file;  // empty: none

  std::string engine = "vulkan";  // or "reference"
  std::string device;             // index, name or UUID; empty: the best
  bool require_gpu = false;
  std::string device_mask;  // features not to use, for tests of the fallbacks
  bool validation = false;  // Khronos validation layer

  std::string data_dir;  // where sessions are kept; empty: in memory only

  SessionLimits session_limits;
  int64_t max_message_bytes = int64_t{256} << 20;
  int64_t max_in_flight_bytes = int64_t{1} << 30;
  int64_t max_saved_forward_bytes = int64_t{1} << 30;  // 0: none is kept
  int64_t max_watchers = 1000;
  std::string admin_listen;                // HOST:PORT of the admin port; empty: none
  std::vector<std::string> admin_hosts;    // names that it answers to, beside addresses and localhost
  int64_t admin_max_session_gauges = 200;  // sessions with gauges of their own in /metrics

  absl::Duration drain_timeout = absl::Seconds(30);

  bool reflection = true;
  bool channelz = false;
  std::string log_format = "text";
  std::string log_level = "info";
};

// The process is to end with this code: help was printed, or a flag was wrong and said so on stderr.
struct ExitCode {
  int value;
};

std::variant<ServerOptions, ExitCode> ParseServerOptions(int argc, char** argv);

}  // namespace normserve
