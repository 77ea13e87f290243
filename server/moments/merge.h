// The moments of several parts together.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/batch_norm.h"
#include "server/moments/part_set.h"

namespace normserve {

enum class MergePolicy {
  // All values as if they had been one batch (Chan, Golub, LeVeque 1983, for any number of parts).
  kExact,
  // What is done where only means and variances were sent: both averaged by count, biased variances. It drops the
  // variance
  // between the parts: sites at -1 and +1 of variance 1 become variance 1, where the truth is 2.
  kWeighted,
  // Every part keeps its own statistics (FedBN: Li et al. 2021): nothing is merged, only compared.
  kKeepLocal,
};

struct MergedMoments {
  Moments moments;              // count 0 and empty with kKeepLocal, or without values
  std::vector<double> within;   // [C], biased variance within the parts: sum of m2 / N
  std::vector<double> between;  // [C], of the parts' means around the common one: sum of n (mean - common)^2 / N
  int64_t num_parts = 0;        // that have values
};

// `within` + `between` is the biased variance of all values, whatever the policy; both are empty without values.
//
// Sums run in the order of the ids in pairs of doubles, from which one rounding remains: the same parts give the same
// bits, and a part alone is given back as it is. INVALID_ARGUMENT (NON_FINITE): a sum is beyond double, channel named.
absl::StatusOr<MergedMoments> MergeParts(const PartSet& parts, MergePolicy policy = MergePolicy::kExact);

// The same of parts that lie elsewhere: by id, each once, of `num_features` channels, 2^53 values a channel at most.
absl::StatusOr<MergedMoments> MergeParts(absl::Span<const PartView> parts, size_t num_features, MergePolicy policy);

}  // namespace normserve
