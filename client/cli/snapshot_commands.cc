#include "client/cli/snapshot_commands.h"

#include <cstdio>
#include <nlohmann/json.hpp>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "client/cli/named.h"
#include "client/cli/session_text.h"

namespace normserve::cli {
namespace {

using client::Client;
using client::Session;
using client::Snapshot;

void Print(const std::string& text) { std::fwrite(text.data(), 1, text.size(), stdout); }

nlohmann::ordered_json SnapshotJson(const Snapshot& snapshot) {
  return {{"name", snapshot.name},
          {"snapshot", snapshot.snapshot},
          {"uid", snapshot.uid},
          {"generation", snapshot.generation},
          {"num_batches_tracked", snapshot.num_batches_tracked},
          {"size_bytes", snapshot.size_bytes},
          {"create_time", absl::FormatTime(absl::RFC3339_full, snapshot.create_time, absl::UTCTimeZone())}};
}

}  // namespace

int TakeSnapshot(const CommandLine& command_line, const std::string& session, const std::string& snapshot) {
  absl::StatusOr<Client> client = MakeClient(command_line);
  if (!client.ok()) return Fail(command_line, client.status());
  const auto kept = CallNamed<Snapshot>(*client, session, [&](const auto& named) { return named.Snapshot(snapshot); });
  if (!kept.ok()) return Fail(command_line, kept.status());
  if (command_line.json) {
    Print(JsonLine(session, *kept, SnapshotJson));
    return kOk;
  }
  for (const Snapshot& each : *kept) {
    Print(absl::StrFormat("%s is kept as %s, generation %d\n", each.name, each.snapshot, each.generation));
  }
  return kOk;
}

int Restore(const CommandLine& command_line, const std::string& session, const std::string& snapshot) {
  absl::StatusOr<Client> client = MakeClient(command_line);
  if (!client.ok()) return Fail(command_line, client.status());
  const auto restored =
      CallNamed<Session>(*client, session, [&](const auto& named) { return named.Restore(snapshot); });
  if (!restored.ok()) return Fail(command_line, restored.status());
  if (command_line.json) {
    Print(JsonLine(session, *restored, [](const Session& each) { return ToJson(each); }));
    return kOk;
  }
  for (const Session& each : *restored) {
    Print(absl::StrFormat("%s is back at %s, generation %d\n", each.name, snapshot, each.generation));
  }
  return kOk;
}

int ListSnapshots(const CommandLine& command_line, const std::string& session) {
  absl::StatusOr<Client> client = MakeClient(command_line);
  if (!client.ok()) return Fail(command_line, client.status());
  absl::StatusOr<std::vector<Snapshot>> snapshots =
      IsModel(session) ? client->AttachModel(session).Snapshots() : client->Attach(session).Snapshots();
  if (!snapshots.ok()) return Fail(command_line, snapshots.status());
  if (command_line.json) {
    nlohmann::ordered_json json = nlohmann::ordered_json::array();
    for (const Snapshot& snapshot : *snapshots) json.push_back(SnapshotJson(snapshot));
    Print(json.dump() + "\n");
    return kOk;
  }
  if (snapshots->empty()) {
    Print(absl::StrCat("no snapshots of ", session, "\n"));
    return kOk;
  }
  Print("  batches  generation       bytes  created                  name\n");
  for (const Snapshot& snapshot : *snapshots) {
    Print(absl::StrFormat("%9d %11d %11d  %s  %s\n", snapshot.num_batches_tracked, snapshot.generation,
                          snapshot.size_bytes, TimeText(snapshot.create_time),
                          IsModel(session) ? absl::StrCat(snapshot.name, " ", snapshot.snapshot) : snapshot.snapshot));
  }
  return kOk;
}

int DeleteSnapshot(const CommandLine& command_line, const std::string& session, const std::string& snapshot) {
  absl::StatusOr<Client> client = MakeClient(command_line);
  if (!client.ok()) return Fail(command_line, client.status());
  const absl::Status status = IsModel(session) ? client->AttachModel(session).DeleteSnapshot(snapshot)
                                               : client->Attach(session).DeleteSnapshot(snapshot);
  if (!status.ok()) return Fail(command_line, status);
  Print(command_line.json ? nlohmann::ordered_json{{"name", session}, {"deleted", snapshot}}.dump() + "\n"
                          : absl::StrCat("deleted snapshot ", snapshot, " of ", session, "\n"));
  return kOk;
}

}  // namespace normserve::cli
