// A session: one batch-norm layer held by the server.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/time/time.h"
#include "normserve/statistics.h"

namespace normserve::client {

// A name for what a Forward does by default.
enum class Mode {
  kUnspecified =
      0,       // in a request: the session's mode (at creation: kTrain); in a reply: one this library has no name for
  kTrain = 1,  // normalise with the batch's own statistics and fold them into the running ones
  kEval = 2,   // normalise with the running statistics and change nothing
};

// What a session is created with. Every default is PyTorch's.
struct SessionConfig {
  int64_t num_features = 0;             // channels, C; required
  std::optional<double> epsilon = {};   // added to the variance before the root; unset: 1e-5
  std::optional<double> momentum = {};  // weight of the newest batch; unset: 0.1
};

// A session as the server describes it.
struct Session {
  std::string name;
  std::string uid;       // random, new on create and clone: tells a session from a later one of the same name
  SessionConfig config;  // with every default written out
  Mode mode = Mode::kUnspecified;
  int64_t generation = 0;           // changes that the state has seen; never set back
  int64_t num_batches_tracked = 0;  // training batches folded in so far
  absl::Time create_time;
  absl::Time update_time;
  std::optional<Parameters> parameters;         // only where they were asked for
  std::optional<RunningStatistics> statistics;  // only where they were asked for
};

}  // namespace normserve::client
