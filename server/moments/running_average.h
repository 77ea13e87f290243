// What an average of batches has kept of its start and of the batches, from its rule alone.
#pragma once

#include <cstdint>

namespace normserve {

// How running statistics follow the batches.
enum class AverageKind {
  kExponential,   // the newest batch weighs `momentum`
  kCumulative,    // every batch weighs the same
  kZeroDebiased,  // exponential, divided by 1 - (1 - momentum)^k: nothing of the start is left
};

struct RunningAverage {
  AverageKind kind = AverageKind::kExponential;
  double momentum = 0.1;  // weight of the newest batch; Keras, Flax and ONNX write the complement. Not for kCumulative
};

// How much of the initial statistics is left after `num_batches`: (1 - momentum)^k, or 0 unless exponential; 1 before
// the first batch. 0 for a momentum outside 0 to 2, whose average diverges.
double InitialShare(const RunningAverage& average, int64_t num_batches);

// How many batches of equal weight would vary as little: 1 / sum of squared weights, once the start is divided out:
//   k                                        cumulative
//   (2 - m) / m * (1 - q^k) / (1 + q^k)      else, q = 1 - m; 19 for m = 0.1 and many batches
// Infinite where k is 0: statistics that were set, not averaged. 1 for a momentum outside 0 to 2.
double EffectiveBatches(const RunningAverage& average, int64_t num_batches);

// The same where the average was set, to statistics without noise of their own, before the newest `since` of
// `num_batches`: 1 / sum of the squared weights of these, k = num_batches:
//   k^2 / since                                     cumulative
//   (2 - m) / m / (1 - q^(2 since)) * z,  q = 1 - m  else; z = (1 - q^k)^2 where zero-debiased, 1 where exponential
// Infinite where `since` is 0.
double EffectiveBatchesSinceSet(const RunningAverage& average, int64_t since, int64_t num_batches);

// The newest batch's weight in the average: momentum; 1 / k cumulative; m / (1 - q^k), q = 1 - m, zero-debiased. 0
// before the first batch; at least 0, and at most 1.
double NewestWeight(const RunningAverage& average, int64_t num_batches);

}  // namespace normserve
