#include "client/cli/stats_text.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/cli/session_text.h"
#include "client/cli/sparkline.h"

namespace normserve::cli {
namespace {

using client::SessionStats;

constexpr size_t kChannelSparkWidth = 64;
constexpr size_t kModelSparkWidth = 16;
constexpr size_t kMaxNamedChannels = 12;

// The moments beside the statistics that were asked for, by name.
std::vector<std::pair<const char*, const client::Moments*>> Beside(const SessionStats& stats) {
  std::vector<std::pair<const char*, const client::Moments*>> beside;
  if (stats.last_batch.has_value()) beside.emplace_back("last_batch", &*stats.last_batch);
  if (stats.shadow.has_value()) beside.emplace_back("shadow", &*stats.shadow);
  return beside;
}

const char* SourceName(client::ComparisonSource source) {
  switch (source) {
    case client::ComparisonSource::kLastBatch:
      return "last_batch";
    case client::ComparisonSource::kShadow:
      return "shadow";
    case client::ComparisonSource::kObserved:
      return "observed";
  }
  return "UNKNOWN";
}

// Those that are there, into `json` by their names.
void AddQuantiles(std::initializer_list<std::pair<const char*, const std::optional<client::Quantiles>*>> all_quantiles,
                  nlohmann::ordered_json& json) {
  for (const auto& [name, quantiles] : all_quantiles) {
    if (!quantiles->has_value()) continue;
    const client::Quantiles& of = **quantiles;
    json[name] = {{"min", of.min}, {"low", of.low}, {"median", of.median}, {"high", of.high}, {"max", of.max}};
  }
}

nlohmann::ordered_json ToJson(const client::StatsSummary& summary) {
  nlohmann::ordered_json json = {{"num_features", summary.num_features}, {"batch_count", summary.batch_count}};
  AddQuantiles({{"running_mean", &summary.running_mean},
                {"running_var", &summary.running_var},
                {"batch_mean", &summary.batch_mean},
                {"batch_var", &summary.batch_var},
                {"kl_divergence", &summary.kl_divergence},
                {"wasserstein", &summary.wasserstein},
                {"mean_z", &summary.mean_z},
                {"variance_z", &summary.variance_z}},
               json);
  json["flagged_channels"] = summary.flagged_channels;
  if (summary.drift.has_value()) json["drift"] = *summary.drift;
  return json;
}

nlohmann::ordered_json ToJson(const client::HistoryPoint& point) {
  nlohmann::ordered_json json = {{"update", point.update},
                                 {"generation", point.generation},
                                 {"num_batches_tracked", point.num_batches_tracked},
                                 {"time", absl::FormatTime(absl::RFC3339_full, point.time, absl::UTCTimeZone())},
                                 {"count", point.count},
                                 {"num_samples", point.num_samples}};
  AddQuantiles({{"running_mean", &point.running_mean},
                {"running_var", &point.running_var},
                {"batch_mean", &point.batch_mean},
                {"batch_var", &point.batch_var}},
               json);
  if (point.relative_gap.has_value()) json["relative_gap"] = *point.relative_gap;
  return json;
}

// The median; "-": not known.
std::string MedianText(const std::optional<client::Quantiles>& quantiles) {
  return quantiles.has_value() ? absl::StrFormat("%.4g", quantiles->median) : "-";
}

// "0.1 to 0.9"; "-" for none.
std::string RangeText(const std::vector<double>& values) {
  if (values.empty()) return "-";
  const auto [least, most] = std::minmax_element(values.begin(), values.end());
  return absl::StrFormat("%.4g to %.4g", *least, *most);
}

// "3, 4, 7 and 12 more".
std::string ChannelsText(const std::vector<int64_t>& channels) {
  const size_t named = std::min(channels.size(), kMaxNamedChannels);
  std::string text = absl::StrJoin(channels.begin(), channels.begin() + static_cast<ptrdiff_t>(named), ", ");
  if (named < channels.size()) absl::StrAppend(&text, " and ", channels.size() - named, " more");
  return text;
}

std::optional<double> DriftOf(const SessionStats& stats) {
  return stats.summary.has_value() ? stats.summary->drift : std::nullopt;
}

}  // namespace

nlohmann::ordered_json ToJson(const SessionStats& stats) {
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
  json["flags"] = stats.flags;
  if (stats.comparison.has_value()) {
    const client::Comparison& comparison = *stats.comparison;
    json["comparison"] = {{"source", SourceName(comparison.source)},
                          {"count", comparison.count},
                          {"kl_divergence", comparison.kl_divergence},
                          {"wasserstein", comparison.wasserstein},
                          {"mean_z", comparison.mean_z},
                          {"variance_ratio", comparison.variance_ratio},
                          {"variance_z", comparison.variance_z}};
  }
  if (stats.summary.has_value()) json["summary"] = ToJson(*stats.summary);
  if (!stats.history.empty()) {
    for (const client::HistoryPoint& point : stats.history) json["history"].push_back(ToJson(point));
  }
  return json;
}

std::string FlagsText(const SessionStats& stats) {
  std::vector<std::string> texts;
  if (stats.summary.has_value()) {
    for (const auto& [flag, count] : stats.summary->flagged_channels) texts.push_back(absl::StrCat(count, " ", flag));
  } else {
    for (const auto& [flag, channels] : stats.flags) texts.push_back(absl::StrCat(channels.size(), " ", flag));
  }
  return absl::StrJoin(texts, ", ");
}

std::string DriftText(const SessionStats& stats) {
  const std::optional<double> drift = DriftOf(stats);
  return drift.has_value() ? absl::StrFormat("%.3g", *drift) : "-";
}

std::string ChannelText(const SessionStats& stats) {
  const client::RunningStatistics& statistics = stats.statistics;
  const std::vector<double> deviations = Roots(statistics.running_var);
  std::string text = absl::StrFormat("%s   mode %s   generation %d   batches %d", stats.name, ModeName(stats.mode),
                                     stats.generation, statistics.num_batches_tracked);
  if (DriftOf(stats).has_value()) absl::StrAppend(&text, "   drift ", DriftText(stats));
  text += "\n\n";
  std::vector<ChannelColumn> columns = {
      {"running_mean", statistics.running_mean}, {"running_var", statistics.running_var}, {"running_std", deviations}};
  if (stats.comparison.has_value() && stats.comparison->count > 0) {
    const client::Comparison& comparison = *stats.comparison;
    columns.push_back({"kl_divergence", comparison.kl_divergence});
    columns.push_back({"wasserstein", comparison.wasserstein});
    columns.push_back({"mean_z", comparison.mean_z});
    columns.push_back({"variance_ratio", comparison.variance_ratio});
    columns.push_back({"variance_z", comparison.variance_z});
  }
  absl::StrAppend(&text, ChannelTable(stats.first_channel, columns));
  if (deviations.size() > 1) {
    absl::StrAppend(&text, "\nrunning_mean ", Sparkline(statistics.running_mean, kChannelSparkWidth), "\nrunning_std  ",
                    Sparkline(deviations, kChannelSparkWidth), "\n");
  }
  if (!stats.flags.empty()) text += "\n";
  for (const auto& [flag, channels] : stats.flags) {
    absl::StrAppend(&text, flag, ": channel", channels.size() == 1 ? " " : "s ", ChannelsText(channels), "\n");
  }
  if (stats.comparison.has_value()) {
    absl::StrAppendFormat(&text, "\ncompared with %s: %d values a channel\n", SourceName(stats.comparison->source),
                          stats.comparison->count);
  }
  for (const auto& [name, moments] : Beside(stats)) {
    absl::StrAppendFormat(&text, "\n%s: %d values a channel\n%s", name, moments->count,
                          ChannelTable(stats.first_channel, {{"mean", moments->mean}, {"m2", moments->m2}}));
  }
  return text;
}

std::string ModelText(const std::vector<SessionStats>& sessions) {
  std::string text = absl::StrFormat("%8s  channels  mode      batches  %-24s %-*s %-24s %s\n", "drift", "running_mean",
                                     static_cast<int>(kModelSparkWidth), "running_std", "running_var", "name");
  for (const SessionStats& stats : sessions) {
    const client::RunningStatistics& statistics = stats.statistics;
    const std::string flags = FlagsText(stats);
    const std::string spark =
        PaddedSparkline(Sparkline(Roots(statistics.running_var), kModelSparkWidth), kModelSparkWidth);
    absl::StrAppendFormat(
        &text, "%8s  %8d  %-7s %9d  %-24s %s %-24s %s%s\n", DriftText(stats),
        stats.summary.has_value() ? stats.summary->num_features : static_cast<int64_t>(statistics.running_mean.size()),
        ModeName(stats.mode), statistics.num_batches_tracked, RangeText(statistics.running_mean), spark,
        RangeText(statistics.running_var), stats.name, flags.empty() ? "" : absl::StrCat("   ", flags));
  }
  const bool is_compared = !sessions.empty() && sessions[0].comparison.has_value();
  const client::ComparisonSource source =
      is_compared ? sessions[0].comparison->source : client::ComparisonSource::kLastBatch;
  const char* const data = source == client::ComparisonSource::kObserved ? "what was observed lies"
                           : source == client::ComparisonSource::kShadow ? "the shadow moments lie"
                                                                         : "the newest batch lies";
  absl::StrAppend(&text, "\ndrift: how far ", data, " from the running statistics, in their own deviations\n");
  return text;
}

std::string HistoryText(const SessionStats& stats) {
  std::string text = absl::StrFormat("%s   mode %s   generation %d   batches %d\n\n", stats.name, ModeName(stats.mode),
                                     stats.generation, stats.statistics.num_batches_tracked);
  if (stats.history.empty()) return text + "nothing was seen in this time\n";
  absl::StrAppendFormat(&text, "%-23s %8s %10s %9s %12s %12s %12s %12s %8s\n", "time", "update", "generation", "values",
                        "running_mean", "running_var", "batch_mean", "batch_var", "gap");
  std::vector<double> gaps, means, deviations;
  for (const client::HistoryPoint& point : stats.history) {
    const std::string gap = point.relative_gap.has_value() ? absl::StrFormat("%.3g", *point.relative_gap) : "-";
    absl::StrAppendFormat(&text, "%-23s %8d %10d %9s %12s %12s %12s %12s %8s\n", TimeText(point.time), point.update,
                          point.generation, point.count > 0 ? absl::StrCat(point.count) : "replaced",
                          MedianText(point.running_mean), MedianText(point.running_var), MedianText(point.batch_mean),
                          MedianText(point.batch_var), gap);
    if (point.relative_gap.has_value()) gaps.push_back(*point.relative_gap);
    if (point.running_mean.has_value()) means.push_back(point.running_mean->median);
    if (point.running_var.has_value()) deviations.push_back(std::sqrt(point.running_var->median));
  }
  text +=
      "\nvalues: of the batch, a channel. Means and variances: medians over the channels. gap: evaluation's output "
      "less\n"
      "training's on that batch, as a share of the weight. \"-\": not kept of that point\n";
  for (const auto& [title, values] :
       {std::pair{"running_mean", &means}, std::pair{"running_std ", &deviations}, std::pair{"gap         ", &gaps}}) {
    if (values->size() > 1) absl::StrAppend(&text, title, " ", Sparkline(*values, kChannelSparkWidth), "\n");
  }
  return text;
}

void RankByDrift(std::vector<SessionStats>& sessions) {
  // By name where it is the same.
  std::sort(sessions.begin(), sessions.end(), [](const SessionStats& a, const SessionStats& b) {
    const double of_a = DriftOf(a).value_or(-1), of_b = DriftOf(b).value_or(-1);
    return of_a != of_b ? of_a > of_b : a.name < b.name;
  });
}

}  // namespace normserve::cli
