// Engine: tensors and channel vectors in, tensors and moments out. It keeps no session state.
#pragma once

#include <memory>
#include <optional>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "kernels/batch_norm.h"

namespace normserve {

// One batch to normalise:
//   y = (x - mean) / sqrt(variance + epsilon) * weight + bias, per channel.
struct ForwardJob {
  InputTensor input;
  // [C] each. Required.
  std::shared_ptr<const AffineParameters> parameters;
  // Added to the variance before the root; finite, >= 0.
  double epsilon = 1e-5;
  // [C] each: normalise with these, constants derived from them in double. Null: with the batch's own mean and biased
  // variance.
  std::shared_ptr<const NormalizationStatistics> given;
  // Whether the moments of the batch are wanted even if `given` is set. Without `given` they always come.
  bool want_moments = false;
};

struct ForwardResult {
  OutputTensor output;
  // The batch's, not finite in a channel that holds NaN or infinity or whose sums overflow float32. Set when the job
  // has no `given` or wants them.
  std::optional<Moments> moments;
};

using ForwardDone = absl::AnyInvocable<void(absl::StatusOr<ForwardResult>) &&>;

// Thread-safe.
class Engine {
 public:
  // Waits for the jobs submitted; every `done` has been called.
  virtual ~Engine() = default;

  // Computes `job` and calls `done` exactly once: from a thread of the engine's, or on the caller's thread before this
  // returns. `done` must not block. Never waits for a device; the input is not read after `done` began.
  //
  // The caller has checked the job: the vectors have the length of the shape, the pieces its size, the shape holds at
  // least one value. Errors: RESOURCE_EXHAUSTED (DEVICE_MEMORY), UNAVAILABLE (DEVICE_LOST).
  virtual void Forward(ForwardJob job, ForwardDone done) = 0;
};

}  // namespace normserve
