// What a session is created with, and the mode it works in.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "server/store/state_store.h"

namespace normserve {

// What a Forward that says nothing does.
enum class Mode {
  kTrain,   // normalise with the batch, fold it into the running statistics
  kEval,    // normalise with the running statistics, change nothing
  kShadow,  // normalise with the running statistics, merge the batch into the shadow moments
};

// How the running statistics follow the batches.
enum class Averaging {
  kExponential,   // weight `momentum`
  kCumulative,    // weight 1 / batches so far
  kZeroDebiased,  // weight momentum / (1 - (1 - momentum)^batches so far)
};

// Which variance of a batch they follow.
enum class RunningVariance { kUnbiased, kBiased };

// What happens to a batch that would update but is not finite.
enum class NonFinitePolicy { kReject, kSkipUpdate };

// Where the defaults of a session's other fields come from.
enum class Convention { kPyTorch, kKeras, kFlax, kOnnx };

// Constant over a session's life. The defaults are PyTorch's.
struct SessionConfig {
  int64_t num_features = 0;  // C
  double epsilon = 1e-5;     // added to the variance before the root
  Averaging averaging = Averaging::kExponential;
  double momentum = 0.1;  // weight of the newest batch in the running statistics; not for kCumulative
  bool affine = true;     // whether weight and bias can be set
  bool track_running_stats = true;
  RunningVariance running_variance = RunningVariance::kUnbiased;
  NonFinitePolicy non_finite_policy = NonFinitePolicy::kReject;
  Convention convention = Convention::kPyTorch;  // of which the above were the defaults
  Durability durability = Durability::kNone;     // what an acknowledged change survives
  std::map<std::string, std::string> labels;     // the user's own

  friend bool operator==(const SessionConfig&, const SessionConfig&) = default;
};

// The defaults of a convention; its sources stand in proto/normserve/v1/session.proto.
SessionConfig ConventionDefaults(Convention convention);

// INVALID_ARGUMENT, naming the field, unless 1 <= num_features <= max_num_features, epsilon is finite and not negative,
// labels are legal and momentum is finite (kZeroDebiased: above 0 and at most 1). Allocates nothing that grows with
// num_features.
absl::Status CheckConfig(const SessionConfig& config, int64_t max_num_features);

// INVALID_ARGUMENT, naming `field`, unless there are at most 64, with keys of 1 to 63 and values of up to 255 bytes of
// printable ASCII.
absl::Status CheckLabels(absl::string_view field, const std::map<std::string, std::string>& labels);

}  // namespace normserve
