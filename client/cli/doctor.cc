#include "client/cli/doctor.h"

#include <cstdio>

#include "absl/strings/str_cat.h"
#include "client/cli/server_commands.h"

namespace normserve::cli {
namespace {

// A server that is not there is no fault here, so it is not waited for.
absl::StatusOr<client::ServerInfo> AskServer(const CommandLine& command_line) {
  absl::StatusOr<client::Client> client =
      client::Client::Connect(command_line.server, {.timeout = command_line.timeout, .retry = {.max_attempts = 1}});
  if (!client.ok()) return client.status();
  return client->GetServerInfo();
}

}  // namespace

int Doctor(const CommandLine& command_line) {
  MachineReport machine = InspectMachine();
  const absl::StatusOr<client::ServerInfo> info = AskServer(command_line);
  bool server_computes = false;
  std::string server_text;
  nlohmann::ordered_json server_json = {{"address", command_line.server}, {"answers", info.ok()}};
  if (info.ok()) {
    server_text = absl::StrCat("  answers, version ", info->version, "\n");
    nlohmann::ordered_json devices = nlohmann::ordered_json::array();
    for (const client::Device& device : info->devices) {
      server_computes = server_computes || device.in_use;
      server_text += DeviceText(device);
      devices.push_back({{"name", device.name}, {"in_use", device.in_use}, {"reason", device.reason}});
    }
    server_json["version"] = info->version;
    server_json["devices"] = devices;
  } else {
    server_text = absl::StrCat("  does not answer: ", info.status().message(),
                               "\n  (start one with ./dev serve, or name another with --server)\n");
    server_json["error"] = std::string(info.status().message());
  }
  const std::string text =
      command_line.json ? nlohmann::ordered_json{{"machine", machine.json}, {"server", server_json}}.dump() + "\n"
                        : absl::StrCat(machine.text, "\nThe server at ", command_line.server, "\n", server_text);
  std::fwrite(text.data(), 1, text.size(), stdout);
  return machine.usable || server_computes ? kOk : kFailed;
}

}  // namespace normserve::cli
