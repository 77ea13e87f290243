#include "client/cli/server_commands.h"

#include <cstdio>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "client/cli/session_text.h"

namespace normserve::cli {
namespace {

using client::Device;
using client::ServerInfo;

// "256 MiB (268435456)"; no unit below a KiB.
std::string Bytes(int64_t bytes) {
  const char* const units[] = {"KiB", "MiB", "GiB", "TiB"};
  double size = static_cast<double>(bytes);
  int unit = -1;
  while (size >= 1024 && unit < 3) {
    size /= 1024;
    ++unit;
  }
  return unit < 0 ? absl::StrCat(bytes) : absl::StrFormat("%.4g %s (%d)", size, units[unit], bytes);
}

std::string Text(const CommandLine& command_line, const ServerInfo& info) {
  std::string text = absl::StrFormat(
      "server     %s, version %s\nstarted    %s\nsessions   %d, %s bytes of state\ndurability %s by "
      "default\n\ndevices\n",
      command_line.server, info.version, TimeText(info.start_time), info.num_sessions, Bytes(info.state_bytes),
      DurabilityName(info.default_durability));
  if (info.devices.empty()) text += "  none\n";
  for (const Device& device : info.devices) text += DeviceText(device);
  absl::StrAppendFormat(
      &text,
      "\nlimits\n  message            %s bytes\n  sessions           %d\n  state              %s bytes\n"
      "  channels           %d\n  requests in work   %s bytes\n  snapshots          %d a session\n",
      Bytes(info.limits.max_message_bytes), info.limits.max_sessions, Bytes(info.limits.max_state_bytes),
      info.limits.max_num_features, Bytes(info.limits.max_in_flight_bytes), info.limits.max_snapshots);
  return text;
}

std::string Json(const ServerInfo& info) {
  nlohmann::ordered_json devices = nlohmann::ordered_json::array();
  for (const Device& device : info.devices) {
    devices.push_back({{"name", device.name},
                       {"uuid", device.uuid},
                       {"type", device.type},
                       {"driver", device.driver},
                       {"api_version", device.api_version},
                       {"in_use", device.in_use},
                       {"reason", device.reason}});
  }
  const nlohmann::ordered_json json = {
      {"version", info.version},
      {"start_time", absl::FormatTime(absl::RFC3339_full, info.start_time, absl::UTCTimeZone())},
      {"num_sessions", info.num_sessions},
      {"state_bytes", info.state_bytes},
      {"default_durability", DurabilityName(info.default_durability)},
      {"devices", devices},
      {"limits",
       {{"max_message_bytes", info.limits.max_message_bytes},
        {"max_sessions", info.limits.max_sessions},
        {"max_state_bytes", info.limits.max_state_bytes},
        {"max_num_features", info.limits.max_num_features},
        {"max_in_flight_bytes", info.limits.max_in_flight_bytes},
        {"max_snapshots", info.limits.max_snapshots},
        {"max_collections", info.limits.max_collections},
        {"max_collection_parts", info.limits.max_collection_parts}}}};
  return json.dump() + "\n";
}

void Print(const std::string& text) { std::fwrite(text.data(), 1, text.size(), stdout); }

}  // namespace

std::string DeviceText(const Device& device) {
  return absl::StrFormat("%s %s\n    %s, Vulkan %s, driver %s\n    uuid %s\n    %s\n", device.in_use ? "* " : "  ",
                         device.name, device.type, device.api_version, device.driver, device.uuid, device.reason);
}

int Info(const CommandLine& command_line) {
  absl::StatusOr<client::Client> client = MakeClient(command_line);
  if (!client.ok()) return Fail(command_line, client.status());
  absl::StatusOr<ServerInfo> info = client->GetServerInfo();
  if (!info.ok()) return Fail(command_line, info.status());
  Print(command_line.json ? Json(*info) : Text(command_line, *info));
  return kOk;
}

int CheckHealth(const CommandLine& command_line, const std::string& service) {
  absl::StatusOr<client::Client> client = MakeClient(command_line);
  if (!client.ok()) return Fail(command_line, client.status());
  absl::StatusOr<client::Health> health = client->CheckHealth(service);
  if (!health.ok()) return Fail(command_line, health.status());
  const char* const name = *health == client::Health::kServing      ? "SERVING"
                           : *health == client::Health::kNotServing ? "NOT_SERVING"
                                                                    : "UNKNOWN";
  Print(command_line.json ? nlohmann::ordered_json{{"status", name}}.dump() + "\n" : absl::StrCat(name, "\n"));
  return *health == client::Health::kServing ? kOk : kFailed;
}

}  // namespace normserve::cli
