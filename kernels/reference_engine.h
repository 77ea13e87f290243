// The oracle: batch norm in plain C++ and double precision, rounded to the tensor's type once, at the end.
#pragma once

#include "kernels/engine.h"

namespace normserve {

// Slow and right. Computes on the caller's thread: `done` is called before Forward returns. Thread-safe.
//
// Mean and M2 are taken in two passes with compensated sums; the output is (x - mean) / sqrt(var + epsilon) * weight +
// bias in double. Source: Ioffe & Szegedy 2015, Algorithm 1; Kahan and Neumaier for the sums.
class ReferenceEngine : public Engine {
 public:
  void Forward(ForwardJob job, ForwardDone done) override;
  void Backward(BackwardJob job, BackwardDone done) override;
};

}  // namespace normserve
