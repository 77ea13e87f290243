#include "server/observe/session_gauges.h"

#include <algorithm>
#include <utility>

#include "absl/time/time.h"
#include "server/observe/evidence.h"
#include "server/observe/gauge_family.h"

namespace normserve {

SessionGauges::Finding SessionGauges::Find(const std::shared_ptr<Session>& session, const SessionContent& content) {
  Finding finding{.state = content.state, .evidence = EvidenceOf(content).moments};
  const auto found = FindingOf(session, content);
  if (!found.ok()) return finding;
  const LayerDiagnosis& layer = found->diagnosis;
  finding.drift = found->drift;
  if (layer.gap.has_value()) finding.relative_gap = layer.RelativeGap();
  finding.num_flagged =
      std::count_if(layer.flags.begin(), layer.flags.end(), [](const ChannelFlags& flags) { return flags.Any(); });
  return finding;
}

std::vector<prometheus::MetricFamily> SessionGauges::Collect() {
  auto generation = GaugeFamily("normserve_session_generation", "Changes that the session's state has seen.");
  auto batches = GaugeFamily("normserve_session_batches_tracked", "num_batches_tracked of the session.");
  auto updated = GaugeFamily("normserve_session_update_timestamp_seconds", "When the session last changed, Unix time.");
  auto gap = GaugeFamily("normserve_session_relative_gap",
                         "Evaluation's output less training's on what the session was last fed, root mean square over "
                         "the weight's; absent without.");
  auto drift = GaugeFamily("normserve_session_drift",
                           "How far what the session was last fed lies from the running statistics, in running "
                           "deviations; absent without.");
  auto flagged = GaugeFamily("normserve_session_flagged_channels",
                             "Channels that are dead, constant, exploding, not finite or otherwise in need of a look.");
  const auto sessions = registry_.InMemory(max_sessions_);
  absl::MutexLock lock(&mutex_);
  std::map<std::string, Finding> findings;
  for (const auto& session : sessions) {
    const SessionContent content = session->Observe();
    Finding& finding = findings[session->uid()];
    if (const auto known = findings_.find(session->uid()); known != findings_.end() &&
                                                           known->second.state == content.state &&
                                                           known->second.evidence == EvidenceOf(content).moments) {
      finding = known->second;
    } else {
      finding = Find(session, content);
    }
    const std::vector<prometheus::ClientMetric::Label> label = {{"session", session->name()}};
    AddGauge(generation, label, static_cast<double>(content.state->generation));
    AddGauge(batches, label, static_cast<double>(content.state->num_batches_tracked));
    AddGauge(updated, label, absl::ToDoubleSeconds(content.state->update_time - absl::UnixEpoch()));
    if (finding.drift.has_value()) AddGauge(drift, label, *finding.drift);
    if (finding.relative_gap.has_value()) AddGauge(gap, label, *finding.relative_gap);
    AddGauge(flagged, label, static_cast<double>(finding.num_flagged));
  }
  findings_ = std::move(findings);
  auto without =
      GaugeFamily("normserve_sessions_without_gauges",
                  "Sessions beyond --admin-max-session-gauges, or in the store and not used since the start.");
  const int64_t num_without = registry_.GetUsage().num_sessions - static_cast<int64_t>(sessions.size());
  AddGauge(without, {}, static_cast<double>(std::max<int64_t>(num_without, 0)));
  return {generation, batches, updated, drift, gap, flagged, without};
}

}  // namespace normserve
