#include "client/cli/stats_command.h"

#include <cstdio>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "client/cli/named.h"
#include "client/cli/output_file.h"
#include "client/cli/stats_plot.h"
#include "client/cli/stats_text.h"

namespace normserve::cli {
namespace {

using client::SessionStats;

void Print(const std::string& text) { std::fwrite(text.data(), 1, text.size(), stdout); }

absl::Status WritePlot(const SessionStats& stats, OutputFile& file) {
  const absl::StatusOr<std::string> png = PlotStats(stats);
  return png.ok() ? file.Write(*png) : png.status();
}

client::StatsOptions WhatIsAsked(const StatsCommandOptions& options) {
  client::StatsOptions asked = options.stats;
  if (!options.compare.empty()) {
    asked.compare_with = options.compare == "shadow"     ? client::ComparisonSource::kShadow
                         : options.compare == "observed" ? client::ComparisonSource::kObserved
                                                         : client::ComparisonSource::kLastBatch;
  } else if (IsModel(options.session)) {
    asked.compare_with = client::ComparisonSource::kLastBatch;
  }
  if (!options.plot.empty()) asked.return_last_batch = true;
  if (options.history) {
    asked.view = client::StatsView::kSummary;
    asked.history.emplace();
    absl::Duration since;
    if (absl::ParseDuration(options.since, &since) && since < absl::InfiniteDuration()) {
      asked.history->since = absl::Now() - since;
    }
  }
  return asked;
}

}  // namespace

int Stats(const CommandLine& command_line, const StatsCommandOptions& options) {
  if (options.by_drift && !IsModel(options.session)) {
    return Fail(command_line,
                absl::InvalidArgumentError(absl::StrCat("--by-drift ranks a model's sessions, and \"", options.session,
                                                        "\" names one session: name a "
                                                        "model, with a '/' at its end")));
  }
  std::optional<OutputFile> plot;
  if (!options.plot.empty()) {
    if (IsModel(options.session)) {
      return Fail(command_line,
                  absl::InvalidArgumentError(
                      absl::StrCat("--plot draws one session, and \"", options.session, "\" names a model: name one")));
    }
    absl::StatusOr<OutputFile> opened = OutputFile::Open(options.plot);
    if (!opened.ok()) return Fail(command_line, opened.status());
    plot.emplace(*std::move(opened));
  }
  absl::StatusOr<client::Client> client = MakeClient(command_line);
  if (!client.ok()) return Fail(command_line, client.status());
  const client::StatsOptions asked = WhatIsAsked(options);
  auto stats = CallNamed<SessionStats>(*client, options.session, [&](const auto& named) { return named.Stats(asked); });
  if (!stats.ok()) return Fail(command_line, stats.status());
  if (options.by_drift) RankByDrift(*stats);
  if (plot.has_value()) {
    if (absl::Status status = WritePlot(stats->front(), *plot); !status.ok()) return Fail(command_line, status);
    if (!options.stats.return_last_batch) stats->front().last_batch.reset();  // was asked for the picture alone
  }
  if (command_line.json) {
    Print(JsonLine(options.session, *stats, [](const SessionStats& each) { return ToJson(each); }));
  } else {
    if (options.history) {
      Print(
          absl::StrJoin(*stats, "\n", [](std::string* text, const SessionStats& each) { *text += HistoryText(each); }));
      return kOk;
    }
    Print(IsModel(options.session) ? ModelText(*stats) : ChannelText(stats->front()));
  }
  return kOk;
}

}  // namespace normserve::cli
