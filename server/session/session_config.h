// What a session is created with, and the mode it works in.
#pragma once

#include <cstdint>

#include "absl/status/status.h"

namespace normserve {

// What a Forward that says nothing does.
enum class Mode {
  kTrain,  // normalise with the batch, fold it into the running statistics
  kEval,   // normalise with the running statistics, change nothing
};

// Constant over a session's life. The defaults are PyTorch's.
struct SessionConfig {
  int64_t num_features = 0;  // C
  double epsilon = 1e-5;     // added to the variance before the root
  double momentum = 0.1;     // weight of the newest batch in the running statistics

  friend bool operator==(const SessionConfig&, const SessionConfig&) = default;
};

// INVALID_ARGUMENT, naming the field, unless 1 <= num_features <= max_num_features, epsilon is finite and not negative,
// and momentum is finite. Allocates nothing that grows with num_features.
absl::Status CheckConfig(const SessionConfig& config, int64_t max_num_features);

}  // namespace normserve
