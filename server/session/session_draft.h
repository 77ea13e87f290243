// What a session begins with.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "kernels/batch_norm.h"
#include "server/session/fingerprint.h"
#include "server/session/session_config.h"
#include "server/session/session_state.h"
#include "server/store/state_store.h"

namespace normserve {

// A session to be opened.
struct SessionDraft {
  std::string name;                      // empty: one is made
  std::string request_id;                // empty: not protected
  SessionConfig config;                  // its durability is set from the one below
  std::optional<Durability> durability;  // unset: the registry's default
  Mode mode = Mode::kTrain;
  AffineParameters parameters;                        // an empty vector means 1 (weight) or 0 (bias)
  std::optional<NormalizationStatistics> statistics;  // unset: mean 0, variance 1
  int64_t num_batches_tracked = 0;
};

// INVALID_ARGUMENT: a field is out of range, or does not go with the others.
absl::Status CheckDraft(const SessionDraft& draft, int64_t max_num_features);

// Tells a repeat of a CreateSession from another.
Fingerprint FingerprintOf(const SessionDraft& draft);

// The state that a session of such a draft, which was checked, begins with.
SessionState FirstState(SessionDraft draft);

}  // namespace normserve
