// All that a session remembers of its batches; immutable once made.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "kernels/batch_norm.h"
#include "server/session/session_config.h"

namespace normserve {

constexpr int64_t kNeverSet = -1;

// Shared as shared_ptr<const SessionState>. States of one session share the vectors that did not change.
struct SessionState {
  SessionConfig config;
  Mode mode = Mode::kTrain;
  std::shared_ptr<const AffineParameters> parameters;      // [C] each
  std::shared_ptr<const NormalizationStatistics> running;  // [C] each; null if the session tracks none
  int64_t num_batches_tracked = 0;
  // Changes the state has seen; never set back.
  int64_t generation = 0;
  // Raised when parameters or statistics are replaced: a batch computed under an older lineage is not folded.
  int64_t lineage = 0;
  // num_batches_tracked when the running statistics were set to other values rather than updated; kNeverSet: they began
  // as 0 and 1, or with statistics that said how many batches were averaged from there.
  int64_t statistics_set_at = kNeverSet;
  absl::Time update_time;
  // Of the vectors, in a store: the sequence of the change that made them.
  int64_t parameters_version = 0;
  int64_t running_version = 0;
};

// Whether statistics are what a session begins with: mean 0 and variance 1.
bool AreInitial(const NormalizationStatistics& statistics);

// statistics_set_at of statistics that come from elsewhere with a count of batches. Those that say how many they
// average are taken at their word, to have begun as these do; without a count they were set, unless they are initial.
inline int64_t SetElsewhere(const NormalizationStatistics& statistics, int64_t num_batches_tracked) {
  return num_batches_tracked > 0 || AreInitial(statistics) ? kNeverSet : 0;
}

// A state kept under a name.
struct StateSnapshot {
  std::shared_ptr<const SessionState> state;  // never null; of a lost one the config is known and all else is 0
  absl::Time create_time;
  absl::Status lost;  // DATA_LOSS where what the store holds of it is damaged
};

// Bytes that a state of `num_features` channels is charged with, as a snapshot is: its vectors (parameters and running
// statistics) and a fixed share. The largest int64_t where they would be more.
int64_t StateSizeBytes(int64_t num_features);

// A session as it is described to clients, without the vectors of length C.
struct SessionDescription {
  std::string name;
  std::string uid;
  SessionConfig config;
  Mode mode = Mode::kTrain;
  int64_t generation = 0;
  int64_t num_batches_tracked = 0;
  absl::Time create_time;
  absl::Time update_time;
  int64_t num_snapshots = 0;
};

// A snapshot as it is described to clients.
struct SnapshotDescription {
  std::string session;
  std::string uid;  // of the session
  std::string name;
  int64_t generation = 0;
  int64_t num_batches_tracked = 0;
  absl::Time create_time;
  int64_t size_bytes = 0;
};

}  // namespace normserve
