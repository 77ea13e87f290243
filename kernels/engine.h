// Engine: tensors and channel vectors in, tensors, moments and gradients out. It keeps no session state.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "kernels/batch_norm.h"

namespace normserve {

// A batch that an engine keeps where it computes, for a Backward of the same engine. Goes back to the engine when the
// last pointer is dropped, which may happen on any thread; before the engine is destroyed. Immutable.
class KeptInput {
 public:
  virtual ~KeptInput() = default;

  const BatchShape& shape() const { return shape_; }
  ElementType type() const { return type_; }
  // What it takes of the engine's memory.
  int64_t size_bytes() const { return size_bytes_; }

 protected:
  KeptInput(const BatchShape& shape, ElementType type, int64_t size_bytes)
      : shape_(shape), type_(type), size_bytes_(size_bytes) {}

 private:
  const BatchShape shape_;
  const ElementType type_;
  const int64_t size_bytes_;
};

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
  // Whether the input is to be kept for a Backward.
  bool keep_input = false;
};

struct ForwardResult {
  OutputTensor output;
  // The batch's, not finite in a channel that holds NaN or infinity or whose sums overflow float32. Set when the job
  // has no `given` or wants them.
  std::optional<Moments> moments;
  // If the job asked for it.
  std::shared_ptr<const KeptInput> kept_input;
};

// What a batch's gradients are made of, per channel over N and *, g being the gradient of the output and x the input:
// sums of several parts of a batch may be added.
struct GradientSums {
  int64_t count = 0;                  // values per channel
  std::vector<double> grad_output;    // [C], sum of g: the gradient of the bias
  std::vector<double> product;        // [C], sum of g * (x - mean)
  std::vector<double> centred_input;  // [C], sum of x - mean: what is left of rounding `mean`
  // [C], sum of (x - mean)^2, or empty: not summed, because `mean` is not the batch's own.
  std::vector<double> centred_input_squared;
};

// The gradients of one Forward. With m the mean and v the variance of `normalization`, r = 1 / sqrt(v + epsilon), and
// count, G, P, X and S the sums:
//
//   from_batch:  v  = (S - X / count * X) / count, if there is S
//                xc = (x - m) - X / count
//                k  = (P - X / count * G) / count / (v + epsilon)
//                grad_input = ((g - G / count) - xc * k) * (weight * r)
//   else:        grad_input = g * (weight * r)
//
// Of two values a channel, g - G / count lies along xc: what is left of it beside xc * k is computed as what it is, for
// the difference would keep no digits. A k that is not finite passes through:
//
//   count == 2:  (g - G / count) * (epsilon / (v + epsilon)) * (weight * r)
//
// Source: Ioffe & Szegedy 2015, section 3. X / count is zero but for rounding; with it, and with S, the gradient does
// not depend on how exact m and v are, also where nearly all of it cancels. Where G is not finite, neither is P, and X
// / count * G is left out. grad_bias is G; grad_weight is r
// * (P - X / count * G), or r * P if not from_batch: the caller's.
struct BackwardJob {
  // The gradient of the output, of the input's shape and type.
  InputTensor grad_output;
  // The input: `kept_input` if it is set, else `input`. Neither is needed where the sums come with the job and
  // from_batch is false.
  InputTensor input;
  std::shared_ptr<const KeptInput> kept_input;
  // [C]: gamma, as Forward used it. Required.
  std::shared_ptr<const AffineParameters> parameters;
  double epsilon = 1e-5;
  // [C] each: what Forward normalised with; variance is biased and without epsilon. Required.
  std::shared_ptr<const NormalizationStatistics> normalization;
  // Whether it was the batch's own, so that the gradient runs through mean and variance.
  bool from_batch = true;
  // Sums to begin with in place of this batch's, such as those of a batch that this one is a part of.
  std::optional<GradientSums> sums;
  // Whether the gradient of the input is wanted, or the sums alone.
  bool want_grad_input = true;
};

struct BackwardResult {
  // Of this batch, or those of the job. Not finite where a value of the channel is not, or where they overflow float32.
  GradientSums sums;
  // Of the gradient's shape and type, if it was wanted.
  OutputTensor grad_input;
};

using BackwardDone = absl::AnyInvocable<void(absl::StatusOr<BackwardResult>) &&>;

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

  // The same for gradients.
  virtual void Backward(BackwardJob job, BackwardDone done) = 0;
};

}  // namespace normserve
