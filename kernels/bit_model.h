// The oracle for bits: a plain C++ model of the shaders' arithmetic.
#pragma once

#include "kernels/engine.h"

namespace normserve {

// Computes in float32 what the shaders compute, in the order that they do, written as a definition: recursion over the
// merge tree where they have schedules. Every Vulkan device and variant must give its bits, for
//   - output, moments, gradients and sums,
//   - in every element type and layout,
// as long as operands and results, those in between included, are zero, normal or infinite; any NaN equals any NaN.
// Subnormals, which some devices make zero and this keeps, stay away where a channel's standard deviation (or the root
// of the given variance) and the size of its gradient lie between 1e-15 and 1e15 or are 0, and no result is subnormal
// itself; a few values far smaller than the rest do no harm. The accuracy that README states holds there too. With as
// many as n values a channel the upper end is 1e19 / sqrt(n), where a sum of squares leaves float32: the moments are
// infinite then.
//
// Measured (gradient_edges_test): SwiftShader, which flushes, is the first to differ, at deviations of 1e-17 and
// gradients of 1e-26.
//
// Slow. Computes on the caller's thread: `done` is called before Forward returns. Thread-safe.
class BitModelEngine : public Engine {
 public:
  void Forward(ForwardJob job, ForwardDone done) override;
  void Backward(BackwardJob job, BackwardDone done) override;
};

}  // namespace normserve
