#include "server/server_options.h"

#include <CLI/CLI.hpp>
#include <limits>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"

namespace normserve {
namespace {

constexpr int kUsageError = 2;

// NORMSERVE_MAX_SESSIONS for --max-sessions.
std::string EnvironmentName(absl::string_view flag) {
  return absl::StrCat("NORMSERVE_", absl::AsciiStrToUpper(absl::StrReplaceAll(flag, {{"-", "_"}})));
}

// Declares flags of one group of the help.
class FlagGroup {
 public:
  FlagGroup(CLI::App& app, std::string name) : app_(app), name_(std::move(name)) {}

  template <typename T>
  CLI::Option* Option(const std::string& flag, T& value, const std::string& help) {
    return Finish(flag, app_.add_option("--" + flag, value, help)->capture_default_str());
  }
  CLI::Option* Flag(const std::string& flag, bool& value, const std::string& help) {
    return Finish(flag, app_.add_flag("--" + flag, value, help));
  }
  // On unless --no-FLAG.
  CLI::Option* Switch(const std::string& flag, bool& value, const std::string& help) {
    return Finish(flag, app_.add_flag("--" + flag + ",!--no-" + flag, value, help));
  }
  // A count of bytes: 268435456, 256MiB.
  CLI::Option* Bytes(const std::string& flag, int64_t& value, const std::string& help) {
    return Option(flag, value, help + " (256MiB is understood)")
        ->transform(CLI::Validator(CLI::AsSizeValue(/*kb_is_1000=*/false)).description(""))
        ->type_name("BYTES");
  }

 private:
  CLI::Option* Finish(const std::string& flag, CLI::Option* option) {
    return option->group(name_)->envname(EnvironmentName(flag));
  }

  CLI::App& app_;
  const std::string name_;
};

std::string CheckDuration(const std::string& text) {
  absl::Duration duration;
  if (absl::ParseDuration(text, &duration) && duration >= absl::ZeroDuration()) return "";
  return "\"" + text + "\" is no duration: 30s, 250ms, 2m";
}

void DeclareFlags(CLI::App& app, ServerOptions& options, std::string& drain_timeout) {
  FlagGroup network(app, "Network");
  network
      .Option("listen", options.listen,
              "Address to serve on, HOST:PORT (port 0: a free one), unix:PATH or unix-abstract:NAME; repeatable")
      ->delimiter(',')
      ->type_name("ADDRESS");
  network.Option("port-file", options.port_file, "Write the addresses here, one a line, once they are served")
      ->type_name("FILE");
  network.Switch("reflection", options.reflection, "Serve gRPC reflection (on unless --no-reflection)");
  network.Flag("channelz", options.channelz, "Serve gRPC channelz");
  network.Option("drain-timeout", drain_timeout, "What requests in work get to finish after SIGTERM")
      ->check(CheckDuration)
      ->type_name("DURATION");

  FlagGroup admin(app, "Admin");
  admin
      .Option("admin-listen", options.admin_listen,
              "Serve the web page, /metrics and /healthz by HTTP on HOST:PORT (port 0: a free one; unset: not at all). "
              "Anybody who reaches it reads all statistics: 127.0.0.1:8002 is for this machine alone")
      ->type_name("HOST:PORT");
  admin
      .Option("admin-host", options.admin_hosts,
              "Name that the admin port is known by, beside addresses and localhost; repeatable")
      ->delimiter(',')
      ->type_name("NAME");
  admin
      .Option("admin-max-session-gauges", options.admin_max_session_gauges,
              "Sessions that have gauges of their own in /metrics")
      ->check(CLI::Range(int64_t{0}, int64_t{100'000}).description(""))
      ->type_name("COUNT");

  FlagGroup device(app, "Device");
  device.Option("engine", options.engine, "vulkan, or reference: plain C++ in double precision, for comparison")
      ->check(CLI::IsMember({"vulkan", "reference"}));
  device.Option("device", options.device, "Index, part of the name, or UUID of the Vulkan device (unset: the best)");
  device.Flag("require-gpu", options.require_gpu, "Refuse to start on a CPU driver");
  device.Option("device-mask", options.device_mask,
                "What to take from the device, to reach every fallback in tests: max_storage_buffer_range=BYTES, "
                "max_allocation_size=BYTES, max_workgroup_invocations=N, max_workgroup_count=N, "
                "max_shared_memory_bytes=BYTES, staging, no_push_descriptors, no_float_controls; by commas");
  device.Flag("validation", options.validation, "Run under the Khronos validation layer");

  FlagGroup state(app, "State");
  state
      .Option("data-dir", options.data_dir,
              "Directory that keeps sessions over restarts and crashes, made if it is missing; one server at a time "
              "(unset: sessions live in memory only)")
      ->type_name("DIR");

  const CLI::Validator positive =
      CLI::Validator(CLI::Range(int64_t{1}, std::numeric_limits<int64_t>::max())).description("");
  FlagGroup limits(app, "Limits");
  limits.Bytes("max-message-bytes", options.max_message_bytes, "Longest message received");
  limits.Bytes("max-in-flight-bytes", options.max_in_flight_bytes, "Bytes of requests in work at once");
  limits.Bytes("max-saved-forward-bytes", options.max_saved_forward_bytes,
               "Bytes of device memory for inputs kept for Backward; 0 keeps none");
  limits.Option("max-sessions", options.session_limits.max_sessions, "Sessions open at once")
      ->check(positive)
      ->type_name("COUNT");
  limits.Bytes("max-state-bytes", options.session_limits.max_state_bytes, "Bytes of state of all sessions");
  limits
      .Option("max-collections", options.session_limits.collections.max_open,
              "Merges and calibrations of one session that are not committed")
      ->check(positive)
      ->type_name("COUNT");
  limits
      .Option("max-collection-parts", options.session_limits.collections.max_parts, "Parts of one merge or calibration")
      ->check(positive)
      ->type_name("COUNT");
  limits.Option("max-num-features", options.session_limits.max_num_features, "Channels of one session")
      ->check(positive)
      ->type_name("COUNT");

  FlagGroup log(app, "Log");
  log.Option("log-format", options.log_format, "text or json, on stderr")->check(CLI::IsMember({"text", "json"}));
  log.Option("log-level", options.log_level, "Lowest level that is written")
      ->check(CLI::IsMember({"trace", "debug", "info", "warn", "error", "off"}));
}

// HOST:PORT or [IPV6]:PORT.
bool IsHostAndPort(absl::string_view address) {
  const size_t colon = address.rfind(':');
  if (colon == absl::string_view::npos) return false;
  absl::string_view host = address.substr(0, colon);
  const absl::string_view port = address.substr(colon + 1);
  // Brackets, or a single colon: who wrote ::1:80 may have meant an address without a port.
  const bool bracketed = absl::ConsumePrefix(&host, "[") && absl::ConsumeSuffix(&host, "]");
  if (host.empty() || host.find_first_of(bracketed ? "[]" : "[]:/") != absl::string_view::npos) return false;
  uint32_t number = 0;
  return port.find_first_not_of("0123456789") == absl::string_view::npos && absl::SimpleAtoi(port, &number) &&
         number <= 65535;
}

// gRPC serves what it can make of an address, on port 443 or the port modulo 65536. Empty if all is well.
std::string CheckListen(absl::string_view address) {
  const std::string wrong =
      absl::StrCat("--listen is \"", std::string(address),
                   "\": set HOST:PORT with a port from 0 to 65535 (0: a free one), [IPV6]:PORT, unix:PATH or "
                   "unix-abstract:NAME");
  for (const char* const prefix : {"unix:", "unix-abstract:"}) {
    absl::string_view rest = address;
    if (absl::ConsumePrefix(&rest, prefix)) return rest.empty() ? wrong : "";
  }
  return IsHostAndPort(address) ? "" : wrong;
}

// What no flag can check alone, or CLI11 does not check in the environment; empty if all is well.
std::string CheckTogether(const ServerOptions& options) {
  // gRPC and Protocol Buffers count in int, and a reply is a little longer than its request.
  constexpr int64_t kMaxMessageBytes = 2'000'000'000;
  if (options.max_message_bytes < 1 || options.max_message_bytes > kMaxMessageBytes) {
    return absl::StrCat("--max-message-bytes is ", options.max_message_bytes, ": set 1 up to ", kMaxMessageBytes);
  }
  if (options.max_in_flight_bytes < options.max_message_bytes) {
    return absl::StrCat("--max-in-flight-bytes is ", options.max_in_flight_bytes, ", less than --max-message-bytes, ",
                        options.max_message_bytes, ": the longest message could never be served");
  }
  if (options.session_limits.max_state_bytes < 1) {
    return absl::StrCat("--max-state-bytes is ", options.session_limits.max_state_bytes, ": set 1 or more");
  }
  // So that no number of bytes that follows from it comes near the end of int64_t.
  constexpr int64_t kMaxNumFeatures = int64_t{1} << 28;
  if (options.session_limits.max_num_features < 1 || options.session_limits.max_num_features > kMaxNumFeatures) {
    return absl::StrCat("--max-num-features is ", options.session_limits.max_num_features, ": set 1 up to ",
                        kMaxNumFeatures);
  }
  if (options.listen.empty()) return "--listen names no address";
  for (const std::string& address : options.listen) {
    if (std::string wrong = CheckListen(address); !wrong.empty()) return wrong;
  }
  if (!options.admin_listen.empty() && !IsHostAndPort(options.admin_listen)) {
    return absl::StrCat("--admin-listen is \"", options.admin_listen,
                        "\": set HOST:PORT with a port from 0 to 65535 (0: a free one) or [IPV6]:PORT");
  }
  return "";
}

}  // namespace

std::variant<ServerOptions, ExitCode> ParseServerOptions(int argc, char** argv) {
  ServerOptions options;
  std::string drain_timeout = absl::FormatDuration(options.drain_timeout);
  CLI::App app(
      "Serves batch normalisation over gRPC.\n"
      "Each flag is also read from the environment, where it is not given: NORMSERVE_MAX_SESSIONS for --max-sessions.",
      "normserve-server");
  app.set_version_flag("--version", std::string("normserve ") + NORMSERVE_VERSION);
  app.get_formatter()->column_width(34);
  DeclareFlags(app, options, drain_timeout);
  try {
    app.parse(argc, argv);
    if (const std::string wrong = CheckTogether(options); !wrong.empty()) throw CLI::ValidationError(wrong);
  } catch (const CLI::ParseError& error) {
    return ExitCode{app.exit(error) == 0 ? 0 : kUsageError};
  }
  absl::ParseDuration(drain_timeout, &options.drain_timeout);
  return options;
}

}  // namespace normserve
