// The guards that every change takes: at most once, only at this generation, only this session.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "server/session/fingerprint.h"

namespace normserve {

struct ChangeGuard {
  std::string request_id;                      // empty: not protected
  std::optional<int64_t> expected_generation;  // unset: at any
  std::string expected_uid;                    // empty: any
};

// INVALID_ARGUMENT unless the id is at most 128 printable ASCII characters and the generation is not negative.
absl::Status CheckGuardFields(const ChangeGuard& guard);

// ABORTED (UID_MISMATCH, GENERATION_MISMATCH) unless session `name`, with `uid` at `generation`, is what was expected.
absl::Status CheckExpectations(const ChangeGuard& guard, absl::string_view name, absl::string_view uid,
                               int64_t generation);

// Adds what was expected to a request's fingerprint; the id is what the fingerprint is kept under.
void AddExpectations(const ChangeGuard& guard, FingerprintBuilder& fingerprint);

}  // namespace normserve
