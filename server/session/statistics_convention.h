// A session's statistics between conventions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/batch_norm.h"
#include "server/moments/running_average.h"
#include "server/session/session_config.h"

namespace normserve {

// How the running statistics of such a session follow the batches.
RunningAverage AverageOf(const SessionConfig& config);

// Which running variance is asked for in place of which, and what is known of how it was kept.
struct VarianceConversion {
  RunningVariance from = RunningVariance::kUnbiased;
  RunningVariance to = RunningVariance::kUnbiased;
  std::optional<int64_t> num_batches_tracked;  // unset: not known
  int64_t values_per_channel = 0;              // of every batch; 0: not known
};

// `statistics` of session `name`, kept with the averaging of `config`, converted as ConvertRunningVariance does.
// FAILED_PRECONDITION (CONVENTION_MISMATCH): as that says, or the count is not known.
absl::StatusOr<NormalizationStatistics> ConvertStatistics(const std::string& name, NormalizationStatistics statistics,
                                                          const SessionConfig& config,
                                                          const VarianceConversion& conversion);

// FAILED_PRECONDITION (CONVENTION_MISMATCH): the layers of `convention` have no averaging as session `name` has.
absl::Status CheckAveraging(const std::string& name, const SessionConfig& config, Convention convention);

// What `convention` calls momentum: the weight of the newest batch (PyTorch), or its complement. Nothing where the
// session's averaging has none there.
std::optional<double> MomentumIn(Convention convention, const SessionConfig& config);

}  // namespace normserve
