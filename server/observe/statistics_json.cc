#include "server/observe/statistics_json.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "server/observe/history_json.h"
#include "server/observe/layer_json.h"
#include "server/session/field_error.h"

namespace normserve {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kMaxFlagged = 100;

std::string Text(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

// What the page shows of all sessions below one name.
struct ModelLine {
  bool is_session = false;
  int64_t num_layers = 0;
  int64_t num_features = 0;
  std::map<std::string, int64_t> modes;
  absl::Time update_time = absl::InfinitePast();
};

std::map<std::string, ModelLine> ModelLines(const SessionRegistry& registry) {
  std::map<std::string, ModelLine> models;
  std::string page_token;
  do {
    const auto page = registry.List("", 1000, page_token);
    if (!page.ok()) break;  // the token of a session that is gone: the next look has all
    for (const SessionDescription& session : page->sessions) {
      const size_t slash = session.name.find('/');
      ModelLine& line = models[slash == std::string::npos ? session.name : session.name.substr(0, slash + 1)];
      line.is_session = slash == std::string::npos;
      ++line.num_layers;
      line.num_features += session.config.num_features;
      ++line.modes[ModeName(session.mode)];
      line.update_time = std::max(line.update_time, session.update_time);
    }
    page_token = page->next_page_token;
  } while (!page_token.empty());
  return models;
}

Json ServerJson(const SessionRegistry& registry, const CallGate& gate, const ServerDescription& server) {
  const SessionRegistry::Usage usage = registry.GetUsage();
  Json devices = Json::array();
  for (const DeviceDescription& device : server.devices) {
    if (device.in_use) devices.push_back({{"name", device.name}, {"driver", device.driver}, {"type", device.type}});
  }
  return {{"version", server.version},         {"start_time", TimeText(server.start_time)},
          {"devices", std::move(devices)},     {"num_sessions", usage.num_sessions},
          {"state_bytes", usage.state_bytes},  {"max_state_bytes", registry.limits().max_state_bytes},
          {"calls_in_work", gate.num_calls()}, {"is_draining", gate.is_draining()}};
}

const char* AveragingName(Averaging averaging) {
  switch (averaging) {
    case Averaging::kExponential:
      return "EXPONENTIAL";
    case Averaging::kCumulative:
      return "CUMULATIVE";
    case Averaging::kZeroDebiased:
      return "ZERO_DEBIASED";
  }
  return "EXPONENTIAL";
}

const char* DurabilityName(Durability durability) {
  switch (durability) {
    case Durability::kNone:
      return "NONE";
    case Durability::kCommit:
      return "COMMIT";
    case Durability::kFlush:
      return "FLUSH";
  }
  return "NONE";
}

Json ConfigJson(const SessionConfig& config) {
  Json momentum = nullptr;
  if (config.averaging != Averaging::kCumulative) momentum = config.momentum;
  return {{"epsilon", config.epsilon},
          {"averaging", AveragingName(config.averaging)},
          {"momentum", std::move(momentum)},
          {"affine", config.affine},
          {"track_running_stats", config.track_running_stats},
          {"running_variance", config.running_variance == RunningVariance::kBiased ? "BIASED" : "UNBIASED"},
          {"durability", DurabilityName(config.durability)}};
}

Json FlaggedJson(const std::vector<ChannelFlags>& flags) {
  Json flagged = Json::array();
  for (size_t c = 0; c < flags.size() && flagged.size() < kMaxFlagged; ++c) {
    if (!flags[c].Any()) continue;
    Json names = Json::array();
    for (size_t flag = 0; flag < kNumChannelFlags; ++flag) {
      const auto each = static_cast<ChannelFlag>(flag);
      if (flags[c].Has(each)) names.push_back(std::string(ChannelFlagName(each)));
    }
    flagged.push_back({{"channel", c}, {"flags", std::move(names)}});
  }
  return flagged;
}

// Channels in the order asked for.
std::vector<size_t> OrderOf(const LayerReport& report, size_t num_features, bool by_drift) {
  std::vector<size_t> order(num_features);
  std::iota(order.begin(), order.end(), size_t{0});
  const std::vector<double>& drifts = report.finding.channel_drift;
  if (!by_drift || drifts.empty()) return order;
  // What is not a number comes last, so that the order is one.
  const auto drift = [&drifts](size_t c) { return std::isnan(drifts[c]) ? -1 : drifts[c]; };
  std::sort(order.begin(), order.end(),
            [&drift](size_t a, size_t b) { return std::pair(-drift(a), a) < std::pair(-drift(b), b); });
  return order;
}

Json ChannelsJson(const SessionContent& content, const LayerReport& report, const ChannelQuery& query) {
  const SessionState& state = *content.state;
  const auto num_features = static_cast<size_t>(state.config.num_features);
  const std::vector<size_t> order = OrderOf(report, num_features, query.by_drift);
  const size_t begin = std::min(static_cast<size_t>(query.begin), num_features);
  const size_t end = std::min(begin + static_cast<size_t>(query.count), num_features);
  const LayerFinding& finding = report.finding;
  const Moments* const seen = finding.evidence.moments.get();
  Json json = {{"begin", begin}, {"order", query.by_drift ? "drift" : "channel"}};
  const auto add = [&](const char* name, auto&& value_of) {
    Json values = Json::array();
    for (size_t i = begin; i < end; ++i) values.push_back(value_of(order[i]));
    json[name] = std::move(values);
  };
  // An empty vector: nothing is known, or it is the default.
  const auto add_vector = [&add](const char* name, const auto& values, double otherwise) {
    add(name, [&values, otherwise](size_t c) { return values.empty() ? otherwise : static_cast<double>(values[c]); });
  };
  constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();  // null in JSON
  add("channel", [](size_t c) { return c; });
  const NormalizationStatistics* const running = state.running.get();
  add("running_mean", [&](size_t c) { return running == nullptr ? kUnknown : running->mean[c]; });
  add("running_std", [&](size_t c) { return running == nullptr ? kUnknown : std::sqrt(running->variance[c]); });
  const auto count = static_cast<double>(finding.evidence.count());
  add("batch_mean", [&](size_t c) { return seen == nullptr ? kUnknown : seen->mean[c]; });
  add("batch_std", [&](size_t c) { return seen == nullptr ? kUnknown : std::sqrt(seen->m2[c] / count); });
  add_vector("weight", state.parameters->weight, 1);
  add_vector("bias", state.parameters->bias, 0);
  add_vector("drift", finding.channel_drift, kUnknown);
  const std::optional<LayerGap>& gap = finding.diagnosis.gap;
  add("gap", [&](size_t c) { return gap.has_value() ? gap->channels[c].rms : kUnknown; });
  return json;
}

Json SnapshotsJson(const Snapshots& snapshots) {
  Json json = Json::array();
  for (const auto& [name, snapshot] : snapshots) {
    json.push_back(
        {{"name", name}, {"generation", snapshot.state->generation}, {"create_time", TimeText(snapshot.create_time)}});
  }
  return json;
}

absl::Status CheckQuery(const ChannelQuery& query) {
  if (query.begin < 0) return FieldError("begin", absl::StrCat("begin is ", query.begin, ": send 0 or more"));
  if (query.count >= 1 && query.count <= kMaxChannelsInReply) return absl::OkStatus();
  return FieldError("count", absl::StrCat("count is ", query.count, ": send 1 up to ", kMaxChannelsInReply));
}

}  // namespace

std::string ModelsJson(const SessionRegistry& registry, const CallGate& gate, const ServerDescription& server) {
  Json models = Json::array();
  for (const auto& [name, line] : ModelLines(registry)) {
    models.push_back({{"name", name},
                      {"is_session", line.is_session},
                      {"num_layers", line.num_layers},
                      {"num_features", line.num_features},
                      {"modes", line.modes},
                      {"update_time", TimeText(line.update_time)}});
  }
  return Text({{"server", ServerJson(registry, gate, server)}, {"models", std::move(models)}});
}

absl::StatusOr<std::string> ModelJson(SessionRegistry& registry, absl::string_view name) {
  const std::string prefix = absl::StrCat(absl::StripSuffix(name, "/"), "/");
  auto sessions = registry.FindAll(prefix);
  if (absl::IsNotFound(sessions.status()) && !absl::EndsWith(name, "/")) {
    if (auto single = registry.FindAll(name); single.ok()) sessions = std::move(single);
  }
  if (!sessions.ok()) return sessions.status();
  const auto contents = registry.ObserveAll(*sessions);
  std::vector<LayerReport> reports;
  for (size_t i = 0; i < sessions->size(); ++i) {
    auto report = ReportOf((*sessions)[i], contents[i]);
    if (!report.ok()) return report.status();
    reports.push_back(*std::move(report));
  }
  std::vector<size_t> order(reports.size());
  std::iota(order.begin(), order.end(), size_t{0});
  // Equals in the order of names, which the sessions come in.
  std::sort(order.begin(), order.end(), [&reports](size_t a, size_t b) {
    return std::pair(-reports[a].finding.drift.value_or(-1), a) < std::pair(-reports[b].finding.drift.value_or(-1), b);
  });
  if (order.size() > kMaxLayersInReply) order.resize(kMaxLayersInReply);
  Json layers = Json::array();
  for (const size_t i : order) layers.push_back(std::move(reports[i].json));
  return Text({{"name", sessions->size() == 1 && (*sessions)[0]->name() == name ? std::string(name) : prefix},
               {"num_layers", reports.size()},
               {"num_left_out", reports.size() - order.size()},
               {"layers", std::move(layers)}});
}

absl::StatusOr<std::string> SessionJson(SessionRegistry& registry, absl::string_view name, const ChannelQuery& query) {
  if (absl::Status status = CheckQuery(query); !status.ok()) return status;
  const auto session = registry.Find(name);
  if (!session.ok()) return session.status();
  const SessionContent content = (*session)->Observe();
  auto report = ReportOf(*session, content);
  if (!report.ok()) return report.status();
  Json json = std::move(report->json);
  json["config"] = ConfigJson(content.state->config);
  json["labels"] = content.state->config.labels;
  json["snapshots"] = SnapshotsJson(*content.snapshots);
  json["flagged"] = FlaggedJson(report->finding.diagnosis.flags);
  json["history"] = HistoryJson(content);
  json["channels"] = ChannelsJson(content, *report, query);
  return Text(json);
}

}  // namespace normserve
