// Population statistics, to evaluate with, from the moments of many batches.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/batch_norm.h"
#include "server/moments/part_set.h"

namespace normserve {

enum class CalibrationMethod {
  // All values as one sample: their mean and unbiased variance, m2 / (N - 1). The batches' sizes do not matter.
  kPooled,
  // Ioffe & Szegedy 2015, algorithm 2, steps 10 and 11, over batches of one size m: mean E[batch mean], variance
  // m / (m - 1) * E[biased batch variance]. Leaves out how batch means spread beyond what m values explain, so where
  // batches differ it is the smaller one.
  kAlgorithm2,
};

struct PopulationStatistics {
  NormalizationStatistics statistics;  // [C] each
  int64_t num_batches = 0;             // parts that have values
  int64_t count = 0;                   // values a channel
};

// The statistics of the values of which `batches` has the moments, a batch a part. Workers gather each a PartSet of
// their own and Merge them: the bits depend on the parts alone.
//
// INVALID_ARGUMENT (BATCH_TOO_SMALL): fewer than two values, or kAlgorithm2 with batches of one; (SHAPE_MISMATCH):
// kAlgorithm2 with batches of several sizes, a part of another size than the first named; (NON_FINITE): as MergeParts.
absl::StatusOr<PopulationStatistics> EstimatePopulation(const PartSet& batches, CalibrationMethod method);

// The same of batches that lie elsewhere, as MergeParts takes them.
absl::StatusOr<PopulationStatistics> EstimatePopulation(absl::Span<const PartView> batches, size_t num_features,
                                                        CalibrationMethod method);

}  // namespace normserve
