// Fingerprints of every bit of a result, any NaN being equal to any other.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/engine.h"

namespace normserve::conformance {

// FNV-1a, so that the numbers are the same on every machine.
uint64_t HashOf(const std::vector<float>& values);
uint64_t HashOf(const std::vector<double>& values);
uint64_t HashOf(const ForwardResult& result);   // output and moments
uint64_t HashOf(const BackwardResult& result);  // gradient of the input and sums

}  // namespace normserve::conformance
