// Statistics of data and of layers, in double precision.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace normserve::client {

// How many values there were and, per channel, where they lie and how far they spread. Merge two with Chan's formula;
// never average variances.
struct Moments {
  int64_t count = 0;         // values per channel
  std::vector<double> mean;  // [C]
  std::vector<double> m2;    // [C], sum over the values of (value - mean)^2
  int64_t num_samples = 0;   // N of [N, C, *], summed where data are merged; 0: not known. Diagnose allows for it

  // What training normalises with: m2 / count. Needs count >= 1.
  double BiasedVariance(size_t channel) const { return m2[channel] / static_cast<double>(count); }
  // What training folds into the running variance: m2 / (count - 1). Needs count >= 2.
  double UnbiasedVariance(size_t channel) const { return m2[channel] / static_cast<double>(count - 1); }
};

// What evaluation normalises with, and training updates.
struct RunningStatistics {
  std::vector<double> running_mean;  // [C]; a new session has 0
  std::vector<double> running_var;   // [C], >= 0; a new session has 1
  int64_t num_batches_tracked = 0;   // training batches folded in so far
};

// What follows the normalisation: y = normalised * weight + bias.
struct Parameters {
  std::vector<float> weight;  // [C], gamma; empty at creation: 1, in SetParameters: left as it is
  std::vector<float> bias;    // [C], beta; empty at creation: 0, in SetParameters: left as it is
};

// What gradients are made of, per channel, with g the gradient of the output and x the input. Those of several parts of
// a batch may be added.
struct GradientSums {
  int64_t count = 0;                               // values per channel
  std::vector<double> grad_output;                 // [C], sum of g
  std::vector<double> grad_output_centered_input;  // [C], sum of g * (x - mean)
  std::vector<double> centered_input;              // [C], sum of x - mean
  std::vector<double> centered_input_squared;      // [C], sum of (x - mean)^2; empty: mean is not the batch's own
};

}  // namespace normserve::client
