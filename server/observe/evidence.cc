#include "server/observe/evidence.h"

#include <cmath>
#include <limits>
#include <utility>

#include "server/moments/comparison.h"
#include "server/session/session_diagnosis.h"

namespace normserve {

Evidence EvidenceOf(const SessionContent& content) {
  const Observations& seen = content.observations;
  const Evidence last_batch{"LAST_BATCH", seen.last_batch};
  const Evidence observed{"OBSERVED", seen.observed};
  const Evidence shadow{"SHADOW", seen.shadow};
  const Mode mode = content.state->mode;
  const Evidence& first = mode == Mode::kShadow ? shadow : mode == Mode::kEval ? observed : last_batch;
  for (const Evidence* const each : {&first, &last_batch, &observed, &shadow}) {
    if (each->count() > 0) return *each;
  }
  return {};
}

absl::StatusOr<LayerFinding> FindingOf(const std::shared_ptr<Session>& session, const SessionContent& content) {
  LayerFinding finding{.evidence = EvidenceOf(content)};
  const Evidence& evidence = finding.evidence;
  DiagnoseRequest request{.name = session->name()};
  // Of the newest batch, and of what was observed, Diagnose knows more than its moments.
  if (evidence.count() > 0 && evidence.moments == content.observations.observed) {
    request.observed = true;
  } else if (evidence.count() > 0 && evidence.moments != content.observations.last_batch) {
    request.moments = *evidence.moments;
  }
  auto diagnoses = Diagnose({session}, {content}, request);
  if (!diagnoses.ok()) return diagnoses.status();
  finding.diagnosis = std::move(diagnoses->front().layer);

  const NormalizationStatistics* const running = content.state->running.get();
  if (evidence.count() == 0 || running == nullptr) return finding;
  const auto channels = CompareChannels(*evidence.moments, *running);
  if (!channels.ok()) return channels.status();
  const double epsilon = content.state->config.epsilon;
  finding.drift = Drift(*channels, *running, epsilon);
  for (size_t c = 0; c < channels->size(); ++c) {
    const double distance = (*channels)[c].wasserstein.value_or(std::numeric_limits<double>::quiet_NaN());
    finding.channel_drift.push_back(distance / std::sqrt(running->variance[c] + epsilon));
  }
  return finding;
}

}  // namespace normserve
