#include "server/observe/layer_json.h"

#include <optional>
#include <string>
#include <utility>

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
  auto finding = FindingOf(session, content);
  if (!finding.ok()) return finding.status();
  const LayerDiagnosis& layer = finding->diagnosis;
  const SessionDescription session_is = session->Describe(content);
  Json causes = Json::array();
  for (const CauseShare& cause : layer.causes) {
    causes.push_back({{"cause", std::string(CauseName(cause.cause))}, {"share", cause.share}});
  }
  std::optional<std::string> main_cause;
  if (layer.main_cause.has_value()) main_cause = std::string(CauseName(*layer.main_cause));
  std::optional<double> relative_gap;
  if (layer.gap.has_value()) relative_gap = layer.RelativeGap();
  LayerReport report;
  report.json = {{"name", session_is.name},
                 {"uid", session_is.uid},
                 {"mode", ModeName(session_is.mode)},
                 {"num_features", session_is.config.num_features},
                 {"generation", session_is.generation},
                 {"num_batches_tracked", session_is.num_batches_tracked},
                 {"create_time", TimeText(session_is.create_time)},
                 {"update_time", TimeText(session_is.update_time)},
                 {"evidence", finding->evidence.source == nullptr ? Json(nullptr) : Json(finding->evidence.source)},
                 {"batch_count", finding->evidence.count()},
                 {"drift", OrNull(finding->drift)},
                 {"relative_gap", OrNull(relative_gap)},
                 {"verdict", std::string(VerdictName(layer.verdict))},
                 {"main_cause", OrNull(main_cause)},
                 {"causes", std::move(causes)},
                 {"explanation", layer.explanation},
                 {"advice", layer.advice},
                 {"flags", CountsOf(layer.flags)}};
  report.finding = *std::move(finding);
  return report;
}

}  // namespace normserve
