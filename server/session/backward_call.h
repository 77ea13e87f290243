// One Backward: from the checks over the engine to the gradients. It changes no session.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "kernels/engine.h"
#include "server/session/change_guard.h"
#include "server/session/received_tensor.h"
#include "server/session/saved_forward_cache.h"
#include "server/session/session_registry.h"

namespace normserve {

// What Forward reported of how it normalised, and the input sent again.
struct ResentForward {
  NormalizationStatistics normalization;  // [C]; variance biased, without epsilon
  std::vector<float> weight;              // [C]; empty: 1
  bool from_batch = false;
  ReceivedTensor input;  // not needed where start_from_sums is set and from_batch is not
};

struct BackwardRequest {
  std::string name;
  ChangeGuard guard;          // no request id: nothing is changed
  std::string saved_forward;  // the token; empty: `resent`
  std::optional<ResentForward> resent;
  bool stop_at_sums = false;
  std::optional<GradientSums> start_from_sums;
  bool release_saved_forward = false;
  ReceivedTensor grad_output;
};

struct BackwardReply {
  std::string uid;
  int64_t generation = 0;
  GradientSums sums;
  std::vector<float> grad_weight, grad_bias;  // [C]; empty if the session is not affine
  // Of the gradient; empty dimensions with stop_at_sums.
  ElementType type = ElementType::kFloat32;
  Layout layout = Layout::kChannelsFirst;
  std::vector<int64_t> dimensions;
  OutputTensor grad_input;
};

using BackwardReplied = absl::AnyInvocable<void(absl::StatusOr<BackwardReply>) &&>;

// Calls `replied` exactly once, before this returns or from a thread of the engine's. Never waits for the device.
// `registry`, `engine` and `saved` outlive the call.
//
// NOT_FOUND: no such session. FAILED_PRECONDITION: TOKEN_DROPPED. INVALID_ARGUMENT: tensors, sums or normalisation do
// not fit the session or each other. ABORTED: not the generation or uid expected. And what the engine says.
void StartBackward(SessionRegistry& registry, Engine& engine, SavedForwardCache& saved, BackwardRequest request,
                   BackwardReplied replied);

}  // namespace normserve
