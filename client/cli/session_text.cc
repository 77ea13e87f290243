#include "client/cli/session_text.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"

namespace normserve::cli {
namespace {

const char* AveragingName(client::Averaging averaging) {
  return averaging == client::Averaging::kCumulative     ? "cumulative"
         : averaging == client::Averaging::kZeroDebiased ? "zero_debiased"
                                                         : "exponential";
}

std::string AveragingText(const client::SessionConfig& config) {
  if (config.track_running_stats == false) return "none: the batch's statistics in every mode";
  const char* variance = config.running_variance == client::RunningVariance::kBiased ? "biased" : "unbiased";
  if (config.averaging == client::Averaging::kCumulative) return absl::StrCat("cumulative, ", variance, " variance");
  return absl::StrFormat("%s, momentum %g, %s variance", AveragingName(config.averaging), config.momentum.value_or(0.1),
                         variance);
}

}  // namespace

const char* ModeName(client::Mode mode) {
  switch (mode) {
    case client::Mode::kTrain:
      return "TRAIN";
    case client::Mode::kEval:
      return "EVAL";
    case client::Mode::kShadow:
      return "SHADOW";
    case client::Mode::kUnspecified:
      break;
  }
  return "UNKNOWN";
}

client::Mode ModeOf(const std::string& name) {
  const std::string lower = absl::AsciiStrToLower(name);
  if (lower == "train") return client::Mode::kTrain;
  if (lower == "eval") return client::Mode::kEval;
  if (lower == "shadow") return client::Mode::kShadow;
  return client::Mode::kUnspecified;
}

std::string TimeText(absl::Time time) { return absl::FormatTime("%Y-%m-%d %H:%M:%S UTC", time, absl::UTCTimeZone()); }

const char* DurabilityName(std::optional<client::Durability> durability) {
  if (!durability.has_value()) return "UNKNOWN";
  switch (*durability) {
    case client::Durability::kNone:
      return "NONE";
    case client::Durability::kCommit:
      return "COMMIT";
    case client::Durability::kFlush:
      return "FLUSH";
  }
  return "UNKNOWN";
}

std::optional<client::Durability> DurabilityOf(const std::string& name) {
  const std::string lower = absl::AsciiStrToLower(name);
  if (lower == "none") return client::Durability::kNone;
  if (lower == "commit") return client::Durability::kCommit;
  if (lower == "flush") return client::Durability::kFlush;
  return std::nullopt;
}

std::string LabelsText(const client::Labels& labels) { return absl::StrJoin(labels, ", ", absl::PairFormatter("=")); }

nlohmann::ordered_json ToJson(const client::Session& session) {
  nlohmann::ordered_json json = {
      {"name", session.name},
      {"uid", session.uid},
      {"num_features", session.config.num_features},
      {"epsilon", session.config.epsilon.value_or(1e-5)},
      {"averaging", AveragingName(session.config.averaging)},
      {"momentum", session.config.momentum.value_or(0.1)},
      {"affine", session.config.affine.value_or(true)},
      {"track_running_stats", session.config.track_running_stats.value_or(true)},
      {"biased_running_variance", session.config.running_variance == client::RunningVariance::kBiased},
      {"skip_non_finite", session.config.non_finite_policy == client::NonFinitePolicy::kSkipUpdate},
      {"durability", DurabilityName(session.durability)},
      {"labels", session.config.labels},
      {"mode", ModeName(session.mode)},
      {"generation", session.generation},
      {"num_batches_tracked", session.num_batches_tracked},
      {"num_snapshots", session.num_snapshots},
      {"create_time", absl::FormatTime(absl::RFC3339_full, session.create_time, absl::UTCTimeZone())},
      {"update_time", absl::FormatTime(absl::RFC3339_full, session.update_time, absl::UTCTimeZone())},
  };
  for (const auto& [key, open] :
       {std::pair{"open_merges", &session.open_merges}, std::pair{"open_calibrations", &session.open_calibrations}}) {
    for (const client::OpenCollection& each : *open) {
      json[key].push_back({{"id", each.id}, {"num_parts", each.num_parts}, {"count", each.count}});
    }
  }
  if (session.parameters.has_value()) {
    json["weight"] = session.parameters->weight;
    json["bias"] = session.parameters->bias;
  }
  if (session.statistics.has_value()) {
    json["running_mean"] = session.statistics->running_mean;
    json["running_var"] = session.statistics->running_var;
  }
  return json;
}

std::string SessionText(const client::Session& session) {
  std::string text = absl::StrFormat(
      "name                 %s\nuid                  %s\nnum_features         %d\nepsilon              %g\n"
      "averaging            %s\ndurability           %s\nlabels               %s\nmode                 %s\n"
      "generation           %d\nnum_batches_tracked  %d\nsnapshots            %d\ncreated              %s\n"
      "changed              %s\n",
      session.name, session.uid, session.config.num_features, session.config.epsilon.value_or(1e-5),
      AveragingText(session.config), DurabilityName(session.durability),
      session.config.labels.empty() ? "none" : LabelsText(session.config.labels), ModeName(session.mode),
      session.generation, session.num_batches_tracked, session.num_snapshots, TimeText(session.create_time),
      TimeText(session.update_time));
  for (const auto& [what, open] :
       {std::pair{"merge", &session.open_merges}, std::pair{"calibration", &session.open_calibrations}}) {
    for (const client::OpenCollection& each : *open) {
      absl::StrAppendFormat(&text, "%-20s \"%s\": %d part%s, %d values a channel\n", absl::StrCat("open ", what),
                            each.id, each.num_parts, each.num_parts == 1 ? "" : "s", each.count);
    }
  }
  std::vector<ChannelColumn> columns;
  if (session.parameters.has_value()) {
    const client::Parameters& parameters = *session.parameters;
    columns.push_back({"weight", {parameters.weight.begin(), parameters.weight.end()}});
    columns.push_back({"bias", {parameters.bias.begin(), parameters.bias.end()}});
  }
  if (session.statistics.has_value()) {
    columns.push_back({"running_mean", session.statistics->running_mean});
    columns.push_back({"running_var", session.statistics->running_var});
  }
  if (!columns.empty()) absl::StrAppend(&text, "\n", ChannelTable(0, columns));
  return text;
}

std::string SessionTable(const std::vector<client::Session>& sessions) {
  size_t name_width = 0;
  bool labelled = false;
  for (const client::Session& session : sessions) {
    name_width = std::max(name_width, session.name.size());
    labelled = labelled || !session.config.labels.empty();
  }
  // `name` as wide as it takes for what may follow it.
  const auto named = [&](const std::string& name, const std::string& labels) {
    return labels.empty() ? name : absl::StrFormat("%-*s  %s", static_cast<int>(name_width), name, labels);
  };
  std::string text = absl::StrCat("channels  mode      batches  generation  durability  snapshots  ",
                                  named("name", labelled ? "labels" : ""), "\n");
  for (const client::Session& session : sessions) {
    absl::StrAppendFormat(&text, "%8d  %-7s %9d %11d  %-10s %10d  %s\n", session.config.num_features,
                          ModeName(session.mode), session.num_batches_tracked, session.generation,
                          DurabilityName(session.durability), session.num_snapshots,
                          named(session.name, LabelsText(session.config.labels)));
  }
  return text;
}

std::string ChannelTable(int64_t first_channel, const std::vector<ChannelColumn>& columns) {
  std::string text = "channel";
  size_t num_channels = 0;
  for (const ChannelColumn& column : columns) {
    absl::StrAppendFormat(&text, " %14s", column.title);
    num_channels = std::max(num_channels, column.values.size());
  }
  text += "\n";
  for (size_t channel = 0; channel < num_channels; ++channel) {
    absl::StrAppendFormat(&text, "%7d", first_channel + static_cast<int64_t>(channel));
    for (const ChannelColumn& column : columns) {
      const std::string value =
          channel < column.values.size() ? absl::StrFormat("%.7g", column.values[channel]) : std::string("-");
      absl::StrAppendFormat(&text, " %14s", value);
    }
    text += "\n";
  }
  return text;
}

std::vector<double> Roots(const std::vector<double>& values) {
  std::vector<double> roots;
  for (const double value : values) roots.push_back(std::sqrt(value));
  return roots;
}

}  // namespace normserve::cli
