// What a case should give, computed apart from every engine, and how an engine's answer compares with it.
#pragma once

#include <string>
#include <vector>

#include "kernels/engine.h"
#include "tests/conformance/case.h"

namespace normserve::conformance {

// In long double, rounded nowhere.
struct Expected {
  std::vector<long double> y;
  // [C], of the batch.
  std::vector<long double> mean;
  std::vector<long double> variance;  // biased
};

// Two passes in long double over the batch, the second of which also takes back what rounding left in the mean
// (Chan, Golub, LeVeque 1983, equation 1.7).
Expected ComputeExpected(const Case& test_case, const CaseData& data);

// The gradients of a case, g being the gradient of the output, with the exact statistics of the batch (or the given
// ones).
struct ExpectedGradients {
  std::vector<long double> input;
  std::vector<long double> weight, bias;  // [C]
};
ExpectedGradients ComputeGradients(const Case& test_case, const CaseData& data, const std::vector<float>& g);

// ||actual - expected|| / ||expected||, Euclidean; 0 where both are 0.
long double RelativeError(const std::vector<double>& actual, const std::vector<long double>& expected);

// Where `result` is not what was expected, a sentence each with channel, position, both values and the bound; empty if
// all is well. At most a few of each kind.
std::vector<std::string> Discrepancies(const Case& test_case, const CaseData& data, const Expected& expected,
                                       const ForwardResult& result);

// Runs `job` and waits for its end.
absl::StatusOr<ForwardResult> RunForward(Engine& engine, ForwardJob job);

absl::StatusOr<BackwardResult> RunBackward(Engine& engine, BackwardJob job);

// Runs the case on `engine` and compares.
std::vector<std::string> CheckCase(Engine& engine, const Case& test_case, Cut cut = Cut::kWhole);

// The pieces of an output, joined, as float32.
std::vector<float> JoinOutput(const OutputTensor& output, ElementType type = ElementType::kFloat32);

}  // namespace normserve::conformance
