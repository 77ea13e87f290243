// Sessions as text and as JSON.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "normserve/client.h"

namespace normserve::cli {

// "TRAIN", "EVAL"; "UNKNOWN" for a mode this program is too old for.
const char* ModeName(client::Mode mode);
// Of "train" or "eval", in any case; empty: unspecified.
client::Mode ModeOf(const std::string& name);

// "2026-05-01 12:00:00 UTC".
std::string TimeText(absl::Time time);

// "NONE", "COMMIT", "FLUSH"; "UNKNOWN" for a level this program is too old for.
const char* DurabilityName(std::optional<client::Durability> durability);
// Of "none", "commit" or "flush", in any case; anything else: nothing.
std::optional<client::Durability> DurabilityOf(const std::string& name);

// "run=7, team=vision", in the order of the keys; empty: "".
std::string LabelsText(const client::Labels& labels);

// Every field that is there, under the names of the protocol and of PyTorch.
nlohmann::ordered_json ToJson(const client::Session& session);

// A line a field; then a table of its vectors if they are there.
std::string SessionText(const client::Session& session);

// A line a session, with a title line. Names come last where no session has labels, and labels after them.
std::string SessionTable(const std::vector<client::Session>& sessions);

// One column of a table of channels.
struct ChannelColumn {
  std::string title;
  std::vector<double> values;  // of the channels from first_channel on; may be empty
};

// A line a channel, with a title line.
std::string ChannelTable(int64_t first_channel, const std::vector<ChannelColumn>& columns);

// The square root of each.
std::vector<double> Roots(const std::vector<double>& values);

}  // namespace normserve::cli
