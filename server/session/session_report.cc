#include "server/session/session_report.h"

#include <utility>

#include "kernels/check.h"

namespace normserve {

LayerStatistics StatisticsOf(const SessionState& state) {
  LayerStatistics layer{.num_batches_tracked = state.num_batches_tracked,
                        .weight = state.parameters->weight,
                        .bias = state.parameters->bias,
                        .epsilon = state.config.epsilon};
  if (state.running != nullptr) {
    layer.running_mean = state.running->mean;
    layer.running_variance = state.running->variance;
  }
  return layer;
}

const Moments& LastBatchOf(const SessionContent& content) {
  static const Moments kNone;
  return content.observations.last_batch == nullptr ? kNone : *content.observations.last_batch;
}

std::vector<ChannelFlags> FlagsOf(const SessionContent& content) {
  return FlagChannels(StatisticsOf(*content.state), LastBatchOf(content),
                      static_cast<size_t>(content.state->config.num_features));
}

LayerSummary SummaryOf(const SessionContent& content, absl::Span<const ChannelFlags> flags) {
  return Summarize(StatisticsOf(*content.state), LastBatchOf(content), flags);
}

namespace {

const Moments* DataOf(const Observations& observations, ComparisonSource source) {
  switch (source) {
    case ComparisonSource::kLastBatch:
      return observations.last_batch.get();
    case ComparisonSource::kShadow:
      return observations.shadow.get();
    case ComparisonSource::kObserved:
      return observations.observed.get();
  }
  return nullptr;
}

}  // namespace

SessionComparison CompareWith(const SessionContent& content, ComparisonSource source) {
  const SessionState& state = *content.state;
  const Moments* const data = DataOf(content.observations, source);
  if (data == nullptr || data->count == 0 || state.running == nullptr) return {};
  auto channels = CompareChannels(*data, *state.running);
  NORMSERVE_CHECK(channels.ok());  // lengths are the session's
  const std::optional<double> drift = Drift(*channels, *state.running, state.config.epsilon);
  return {.count = data->count, .channels = *std::move(channels), .drift = drift};
}

}  // namespace normserve
