// One Forward: what is asked and what is answered.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "kernels/batch_norm.h"
#include "server/session/change_guard.h"
#include "server/session/received_tensor.h"
#include "server/session/request_memory.h"
#include "server/session/saved_forward_cache.h"
#include "server/session/session_config.h"

namespace normserve {

// Of a Blend that does not say.
inline constexpr double kDefaultBatchWeight = 0.1;

struct ForwardRequest {
  std::string name;
  ChangeGuard guard;
  std::optional<Mode> mode;                      // unset: the session's
  std::optional<NormalizedWith> normalize_with;  // unset: what the mode says
  Moments given;                                 // if normalize_with is kGiven: mean, and m2 / count for variance
  std::string snapshot;                          // if it is kSnapshot or kBlend: of whose running statistics
  double batch_weight = kDefaultBatchWeight;     // if it is kBlend: 0, the snapshot's alone, to 1, the batch's
  std::optional<Update> update;                  // unset: what the mode says
  bool return_batch_moments = false;
  bool return_saved_forward = false;
  bool return_normalization = false;
  ReceivedTensor input;
};

// Of all that the request says but its id. Reads the whole batch.
Fingerprint FingerprintOf(const ForwardRequest& request);

struct ForwardReply {
  std::string uid;
  int64_t generation = 0;           // after the call
  int64_t snapshot_generation = 0;  // of the state it was computed with
  int64_t num_batches_tracked = 0;  // after the call
  NormalizedWith normalized_with = NormalizedWith::kBatch;
  Update update = Update::kNone;
  Durability durability = Durability::kNone;  // of `generation`
  std::optional<Moments> batch_moments;       // if they were asked for
  // What Backward needs to know, if return_saved_forward or return_normalization asked for it; `input` only with the
  // former.
  std::optional<SavedForward> saved;
  bool return_normalization = false;
  ElementType type = ElementType::kFloat32;
  Layout layout = Layout::kChannelsFirst;
  std::vector<int64_t> dimensions;
  OutputTensor output;  // empty for an empty batch
};

}  // namespace normserve
