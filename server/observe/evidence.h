// What a layer's running statistics are shown beside.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/batch_norm.h"
#include "server/moments/diagnosis.h"
#include "server/session/session.h"

namespace normserve {

// Moments of data that a session has seen. Null: none.
struct Evidence {
  const char* source = nullptr;  // "LAST_BATCH", "SHADOW" or "OBSERVED"
  std::shared_ptr<const Moments> moments;

  int64_t count() const { return moments == nullptr ? 0 : moments->count; }
};

// What the session is fed now: in SHADOW mode the shadow moments, in EVAL what it was told by Observe, in TRAIN the
// newest batch; where that is missing, the newest batch, then what was observed, then the shadow.
Evidence EvidenceOf(const SessionContent& content);

// A layer on its evidence.
struct LayerFinding {
  Evidence evidence;
  std::optional<double> drift;        // of the evidence from the running statistics; absent without either
  std::vector<double> channel_drift;  // [C], its share of each channel; empty without
  LayerDiagnosis diagnosis;
};

// Errors of Diagnose.
absl::StatusOr<LayerFinding> FindingOf(const std::shared_ptr<Session>& session, const SessionContent& content);

}  // namespace normserve
