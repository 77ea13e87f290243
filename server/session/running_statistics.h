// How the running statistics follow the batches.
#pragma once

#include "absl/status/statusor.h"
#include "kernels/batch_norm.h"

namespace normserve {

// The running statistics after one more batch, PyTorch's convention, in double:
//   mean     = (1 - momentum) * mean     + momentum * batch mean
//   variance = (1 - momentum) * variance + momentum * batch m2 / (count - 1)      (unbiased)
//
// `batch` has count >= 2, finite values and the length of `running`. INVALID_ARGUMENT (NON_FINITE): a result is
// beyond double, which takes a momentum of about 1e230 or more.
absl::StatusOr<NormalizationStatistics> FoldBatch(const NormalizationStatistics& running, const Moments& batch,
                                                  double momentum);

}  // namespace normserve
