// A running variance that followed one variance of the batches, as if it had followed the other.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/moments/running_average.h"

namespace normserve {

// Which variance of a batch of n values was folded in.
enum class FoldedVariance {
  kUnbiased,  // m2 / (n - 1): PyTorch
  kBiased,    // m2 / n: Keras, Flax, ONNX
};

// How a running variance came to be.
struct VarianceHistory {
  RunningAverage average;
  int64_t num_batches = 0;         // folded in
  int64_t values_per_channel = 0;  // n of every batch; 0: not known
};

// With s the share of the initial variance, which was 1, that `history.average` has left after num_batches:
//   (variance - s) * n / (n - 1) + s    from biased to unbiased, and with (n - 1) / n the other way.
// The same vector where `from` is `to` or nothing was folded in yet.
//
// FAILED_PRECONDITION (CONVENTION_MISMATCH), naming `layer`: n is not known or below 2; the average diverges (a
// momentum outside 0 to 2); a variance below what the initial one alone leaves, which then was not 1 or had another
// momentum.
absl::StatusOr<std::vector<double>> ConvertRunningVariance(const std::string& layer, absl::Span<const double> variance,
                                                           FoldedVariance from, FoldedVariance to,
                                                           const VarianceHistory& history);

}  // namespace normserve
