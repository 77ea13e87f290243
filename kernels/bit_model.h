// The oracle for bits: a plain C++ model of the shaders' arithmetic.
#pragma once

#include "kernels/engine.h"

namespace normserve {

// Computes in float32 what the shaders compute, in the order that they do, written as a definition: recursion over the
// merge tree where they have schedules. Every Vulkan device and variant must give its bits, for
//   - output, moments, gradients and sums,
//   - in every element type and layout,
// as long as operands and results, those in between included, are zero, normal or infinite; any NaN equals any NaN.
// Outside that (float32 subnormals: products below 1e-31 in the gradients' sums, variances below 1e-38) devices differ
// from each other and from this, which keeps subnormals.
//
// Slow. Computes on the caller's thread: `done` is called before Forward returns. Thread-safe.
class BitModelEngine : public Engine {
 public:
  void Forward(ForwardJob job, ForwardDone done) override;
  void Backward(BackwardJob job, BackwardDone done) override;
};

}  // namespace normserve
