#include "server/session/running_statistics.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/error_reason.h"

namespace normserve {

absl::StatusOr<NormalizationStatistics> FoldBatch(const NormalizationStatistics& running, const Moments& batch,
                                                  double momentum) {
  const size_t num_features = running.mean.size();
  NORMSERVE_CHECK(batch.count >= 2 && batch.mean.size() == num_features && batch.m2.size() == num_features);
  NormalizationStatistics folded;
  folded.mean.resize(num_features);
  folded.variance.resize(num_features);
  for (size_t c = 0; c < num_features; ++c) {
    folded.mean[c] = (1 - momentum) * running.mean[c] + momentum * batch.mean[c];
    folded.variance[c] = (1 - momentum) * running.variance[c] + momentum * batch.UnbiasedVariance(c);
    if (!std::isfinite(folded.mean[c]) || !std::isfinite(folded.variance[c])) {
      return MakeError(absl::StatusCode::kInvalidArgument, ErrorReason::kNonFinite,
                       absl::StrCat("the running statistics of channel ", c, " would overflow with momentum ", momentum,
                                    ": use a momentum between 0 and 1"),
                       {{"field", "config.momentum"}, {"channel", absl::StrCat(c)}});
    }
  }
  return folded;
}

}  // namespace normserve
