#include "server/observe/layer_json.h"

#include <cmath>
#include <string>

#include "server/session/session_diagnosis.h"

namespace normserve {
namespace {

using Json = nlohmann::ordered_json;

template <typename Number>
Json OrNull(const std::optional<Number>& number) {
  return number.has_value() ? Json(*number) : Json(nullptr);
}

Json CountsOf(const std::vector<ChannelFlags>& flags) {
  Json counts = Json::object();
  for (size_t flag = 0; flag < kNumChannelFlags; ++flag) {
    const auto each = static_cast<ChannelFlag>(flag);
    int64_t count = 0;
    for (const ChannelFlags& channel : flags) count += channel.Has(each) ? 1 : 0;
    if (count > 0) counts[std::string(ChannelFlagName(each))] = count;
  }
  return counts;
}

}  // namespace

std::string TimeText(absl::Time time) { return absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", time, absl::UTCTimeZone()); }

const char* ModeName(Mode mode) {
  switch (mode) {
    case Mode::kTrain:
      return "TRAIN";
    case Mode::kEval:
      return "EVAL";
    case Mode::kShadow:
      return "SHADOW";
  }
  return "TRAIN";
}

absl::StatusOr<LayerReport> ReportOf(const std::shared_ptr<Session>& session, const SessionContent& content) {
  const auto diagnoses = Diagnose({session}, {content}, {.name = session->name()});
  if (!diagnoses.ok()) return diagnoses.status();
  const SessionDiagnosis& found = diagnoses->front();
  const LayerDiagnosis& layer = found.layer;
  const SessionComparison comparison = CompareWith(content, ComparisonSource::kLastBatch);
  const SessionDescription session_is = session->Describe(content);

  LayerReport report{.drift = comparison.drift, .flags = layer.flags};
  for (size_t c = 0; c < comparison.channels.size(); ++c) {
    const double deviation = std::sqrt(content.state->running->variance[c] + content.state->config.epsilon);
    report.channel_drift.push_back(comparison.channels[c].wasserstein.value_or(NAN) / deviation);
  }
  if (layer.gap.has_value()) {
    for (const ChannelGap& channel : layer.gap->channels) report.channel_gap.push_back(channel.rms);
  }
  Json causes = Json::array();
  for (const CauseShare& cause : layer.causes) {
    causes.push_back({{"cause", std::string(CauseName(cause.cause))}, {"share", cause.share}});
  }
  std::optional<std::string> main_cause;
  if (layer.main_cause.has_value()) main_cause = std::string(CauseName(*layer.main_cause));
  std::optional<double> relative_gap;
  if (layer.gap.has_value()) relative_gap = layer.RelativeGap();
  report.json = {{"name", session_is.name},
                 {"uid", session_is.uid},
                 {"mode", ModeName(session_is.mode)},
                 {"num_features", session_is.config.num_features},
                 {"generation", session_is.generation},
                 {"num_batches_tracked", session_is.num_batches_tracked},
                 {"create_time", TimeText(session_is.create_time)},
                 {"update_time", TimeText(session_is.update_time)},
                 {"batch_count", found.batch_count},
                 {"drift", OrNull(report.drift)},
                 {"relative_gap", OrNull(relative_gap)},
                 {"verdict", std::string(VerdictName(layer.verdict))},
                 {"main_cause", OrNull(main_cause)},
                 {"causes", std::move(causes)},
                 {"explanation", layer.explanation},
                 {"advice", layer.advice},
                 {"flags", CountsOf(layer.flags)}};
  return report;
}

}  // namespace normserve
