#include "client/cli/stats_command.h"

#include <algorithm>
#include <cstdio>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/named.h"
#include "client/cli/session_text.h"

namespace normserve::cli {
namespace {

using client::Client;

void Print(const std::string& text) { std::fwrite(text.data(), 1, text.size(), stdout); }

// The moments beside the statistics that were asked for, by name.
std::vector<std::pair<const char*, const client::Moments*>> Beside(const client::SessionStats& stats) {
  std::vector<std::pair<const char*, const client::Moments*>> beside;
  if (stats.last_batch.has_value()) beside.emplace_back("last_batch", &*stats.last_batch);
  if (stats.shadow.has_value()) beside.emplace_back("shadow", &*stats.shadow);
  return beside;
}

nlohmann::ordered_json ToJson(const client::SessionStats& stats) {
  nlohmann::ordered_json json = {{"name", stats.name},
                                 {"uid", stats.uid},
                                 {"mode", ModeName(stats.mode)},
                                 {"generation", stats.generation},
                                 {"num_batches_tracked", stats.statistics.num_batches_tracked},
                                 {"first_channel", stats.first_channel},
                                 {"running_mean", stats.statistics.running_mean},
                                 {"running_var", stats.statistics.running_var}};
  for (const auto& [name, moments] : Beside(stats)) {
    json[name] = {{"count", moments->count}, {"mean", moments->mean}, {"m2", moments->m2}};
  }
  return json;
}

// A line a channel.
std::string ChannelText(const client::SessionStats& stats) {
  const client::RunningStatistics& statistics = stats.statistics;
  std::string text =
      absl::StrFormat("%s   mode %s   generation %d   batches %d\n\n%s", stats.name, ModeName(stats.mode),
                      stats.generation, statistics.num_batches_tracked,
                      ChannelTable(stats.first_channel, {{"running_mean", statistics.running_mean},
                                                         {"running_var", statistics.running_var},
                                                         {"running_std", Roots(statistics.running_var)}}));
  for (const auto& [name, moments] : Beside(stats)) {
    absl::StrAppendFormat(&text, "\n%s: %d values a channel\n%s", name, moments->count,
                          ChannelTable(stats.first_channel, {{"mean", moments->mean}, {"m2", moments->m2}}));
  }
  return text;
}

// "0.1 to 0.9"; "-" for none.
std::string RangeText(const std::vector<double>& values) {
  if (values.empty()) return "-";
  const auto [least, most] = std::minmax_element(values.begin(), values.end());
  return absl::StrFormat("%.4g to %.4g", *least, *most);
}

// A line a session.
std::string ModelText(const std::vector<client::SessionStats>& sessions) {
  std::string text = absl::StrFormat("channels  mode      batches  %-26s %-26s name\n", "running_mean", "running_var");
  for (const client::SessionStats& stats : sessions) {
    const client::RunningStatistics& statistics = stats.statistics;
    absl::StrAppendFormat(&text, "%8d  %-7s %9d  %-26s %-26s %s\n", statistics.running_mean.size(),
                          ModeName(stats.mode), statistics.num_batches_tracked, RangeText(statistics.running_mean),
                          RangeText(statistics.running_var), stats.name);
  }
  return text;
}

}  // namespace

int Stats(const CommandLine& command_line, const std::string& session, const client::StatsOptions& options) {
  absl::StatusOr<Client> client = MakeClient(command_line);
  if (!client.ok()) return Fail(command_line, client.status());
  const auto stats =
      CallNamed<client::SessionStats>(*client, session, [&](const auto& named) { return named.Stats(options); });
  if (!stats.ok()) return Fail(command_line, stats.status());
  if (command_line.json) {
    Print(JsonLine(session, *stats, [](const client::SessionStats& each) { return ToJson(each); }));
  } else {
    Print(IsModel(session) ? ModelText(*stats) : ChannelText(stats->front()));
  }
  return kOk;
}

}  // namespace normserve::cli
