// How the running statistics follow the batches.
#pragma once

#include "absl/status/statusor.h"
#include "kernels/batch_norm.h"
#include "server/session/session_config.h"

namespace normserve {

// The weight of the newest batch, the `num_batches`th since the session began (1 or more).
double BatchWeight(const SessionConfig& config, int64_t num_batches);

// The running statistics after one more batch, the `num_batches`th, in double:
//   mean     = (1 - weight) * mean     + weight * batch mean
//   variance = (1 - weight) * variance + weight * batch m2 / (count - 1)      (kBiased: m2 / count)
//
// `batch` has count >= 2, finite values and the length of `running`. INVALID_ARGUMENT (NON_FINITE): a result is
// beyond double, which takes a momentum of about 1e230 or more.
absl::StatusOr<NormalizationStatistics> FoldBatch(const NormalizationStatistics& running, const Moments& batch,
                                                  const SessionConfig& config, int64_t num_batches);

// The moments of two sets of values together (Chan, Golub, LeVeque 1983), in double. Either may be empty.
Moments MergeMoments(const Moments& left, const Moments& right);

}  // namespace normserve
