// What all of normctl's commands share: which server, how long, in which form.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "normserve/client.h"

namespace normserve::cli {

// Exit codes.
inline constexpr int kOk = 0;
inline constexpr int kFailed = 1;  // a call or a file failed; the reason is on stderr
inline constexpr int kUsage = 2;   // the command line cannot be understood

// The options that every command takes.
struct CommandLine {
  std::string server = "127.0.0.1:8001";
  absl::Duration timeout = absl::Seconds(30);
  bool json = false;
};

// A client for `command_line`; it gives up soon on a server that is not there.
absl::StatusOr<client::Client> MakeClient(const CommandLine& command_line);

// Says on stderr what failed and what to do about it. Returns kFailed.
int Fail(const CommandLine& command_line, const absl::Status& status);

}  // namespace normserve::cli
