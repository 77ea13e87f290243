#include "server/observe/history_json.h"

#include <optional>
#include <utility>

#include "server/observe/layer_json.h"
#include "server/session/history.h"

namespace normserve {
namespace {

using Json = nlohmann::ordered_json;

Json QuantilesJson(const std::optional<Quantiles>& quantiles) {
  if (!quantiles.has_value()) return nullptr;
  return {{"low", quantiles->low}, {"median", quantiles->median}, {"high", quantiles->high}};
}

}  // namespace

Json HistoryJson(const SessionContent& content) {
  Json points = Json::array();
  for (const HistoryPoint& point : PointsOf(content.observations.history.get(), *content.state)) {
    const HistorySummary summary = point.summary == nullptr ? HistorySummary{} : *point.summary;
    Json gap = nullptr;
    if (summary.relative_gap.has_value()) gap = *summary.relative_gap;
    points.push_back({{"update", point.update},
                      {"generation", point.generation},
                      {"num_batches_tracked", point.num_batches_tracked},
                      {"time", TimeText(point.time)},
                      {"count", point.count},
                      {"relative_gap", std::move(gap)},
                      {"running_mean", QuantilesJson(summary.running_mean)},
                      {"running_variance", QuantilesJson(summary.running_variance)},
                      {"batch_mean", QuantilesJson(summary.batch_mean)},
                      {"batch_variance", QuantilesJson(summary.batch_variance)}});
  }
  return points;
}

}  // namespace normserve
