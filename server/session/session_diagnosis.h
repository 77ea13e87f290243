// Sessions diagnosed: why evaluation puts out something else than training.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "server/moments/diagnosis.h"
#include "server/session/session.h"

namespace normserve {

struct DiagnoseRequest {
  std::string name;                                      // as the client gave it: a session, or a model's prefix
  std::optional<Moments> moments;                        // of one batch; of a single session
  std::optional<std::map<std::string, Moments>> layers;  // the same by layer, the name without the prefix; of a model
  bool observed = false;                                 // what the sessions have observed, in place of both
  int64_t samples_per_batch = 0;                         // 0: as the moments say

  // Of a batch of the single session that came in place of moments; nothing: it was empty.
  void TakeBatch(std::optional<Moments> batch) { moments = batch.has_value() ? std::move(batch) : Moments{}; }
};

struct SessionDiagnosis {
  std::string name;
  std::string uid;
  int64_t generation = 0;
  int64_t batch_count = 0;  // of what it was compared with; 0: nothing
  LayerDiagnosis layer;
};

// Diagnoses each of `sessions` as `contents` (as many) has it, on the request's moments, on what it has observed or,
// without either, on the newest batch that was folded in, with up to seven or eight batches before it as its history;
// what it has observed with what it had observed before as the reference. Worst first. INVALID_ARGUMENT: moments that
// do not fit; layers that are none of the sessions.
absl::StatusOr<std::vector<SessionDiagnosis>> Diagnose(const std::vector<std::shared_ptr<Session>>& sessions,
                                                       const std::vector<SessionContent>& contents,
                                                       const DiagnoseRequest& request);

}  // namespace normserve
