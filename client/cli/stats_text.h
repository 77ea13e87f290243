// Statistics as text and as JSON.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "normserve/client.h"

namespace normserve::cli {

// Every field that is there, under the names of the protocol. What is not finite is null.
nlohmann::ordered_json ToJson(const client::SessionStats& stats);

// A line a channel, with sparklines over the channels and what is the matter with them.
std::string ChannelText(const client::SessionStats& stats);

// A line a session, in the order given.
std::string ModelText(const std::vector<client::SessionStats>& sessions);

// What it has seen over time, oldest first: a line a batch or replacement, with sparklines over time.
std::string HistoryText(const client::SessionStats& stats);

// "12 NEVER_UPDATED, 1 DEAD"; empty: nothing is the matter. From the summary where there is one.
std::string FlagsText(const client::SessionStats& stats);

// "0.0312"; "-": there is none.
std::string DriftText(const client::SessionStats& stats);

// The most drifted first; those without a drift last, by name.
void RankByDrift(std::vector<client::SessionStats>& sessions);

}  // namespace normserve::cli
