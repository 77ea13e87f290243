#include "client/cli/command_line.h"

#include <cstdio>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace normserve::cli {
namespace {

// What to do about `status`; empty if its text says it.
std::string Advice(const CommandLine& command_line, const absl::Status& status) {
  const std::optional<client::ErrorInfo> info = client::GetErrorInfo(status);
  if (absl::IsUnavailable(status) && !info.has_value()) {
    return absl::StrCat("No server answers at ", command_line.server, ". Start one:\n  ./dev serve          or\n",
                        "  normserve-server --listen ", command_line.server,
                        "\nor name another with --server HOST:PORT or NORMSERVE_SERVER.");
  }
  if (absl::IsDeadlineExceeded(status)) {
    return absl::StrCat("Nothing came back within ", absl::FormatDuration(command_line.timeout),
                        "; --timeout gives it longer. Whether a change was made is not known: look with normctl show.");
  }
  if (absl::IsUnimplemented(status)) {
    return absl::StrCat("What answers at ", command_line.server, " is no Normserve server, or an older one.");
  }
  if (absl::StrContains(status.message(), "larger than max")) {  // gRPC's own words
    return "normctl info shows the server's limits: send smaller batches, or start the server with a larger\n"
           "--max-message-bytes.";
  }
  if (info.has_value() && info->reason == "SESSION_NOT_FOUND") return "normctl list shows the sessions that there are.";
  if (info.has_value() && info->reason == "SNAPSHOT_NOT_FOUND") {
    return "normctl snapshots SESSION shows the snapshots that there are.";
  }
  return "";
}

}  // namespace

absl::StatusOr<client::Client> MakeClient(const CommandLine& command_line) {
  return client::Client::Connect(command_line.server, {.timeout = command_line.timeout, .retry = {.max_attempts = 5}});
}

int Fail(const CommandLine& command_line, const absl::Status& status) {
  std::string text = absl::StrCat("normctl: ", status.message());
  const std::optional<client::ErrorInfo> info = client::GetErrorInfo(status);
  absl::StrAppend(&text, " (", absl::StatusCodeToString(status.code()), info.has_value() ? ", " : "",
                  info.has_value() ? info->reason : "", ")");
  if (const std::string advice = Advice(command_line, status); !advice.empty()) absl::StrAppend(&text, "\n", advice);
  std::fprintf(stderr, "%s\n", text.c_str());
  return kFailed;
}

}  // namespace normserve::cli
