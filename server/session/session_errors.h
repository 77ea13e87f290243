// The errors that concern a session as a whole.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace normserve {

// NOT_FOUND (SESSION_NOT_FOUND).
absl::Status SessionNotFound(absl::string_view name);

// ALREADY_EXISTS (SESSION_EXISTS); `field` held the name.
absl::Status SessionExists(absl::string_view field, absl::string_view name);

// ABORTED (LINEAGE_CHANGED): what a batch was computed for is gone.
absl::Status LineageChanged(absl::string_view name, bool is_deleted);

// INVALID_ARGUMENT (REQUEST_ID_REUSED).
absl::Status RequestIdReused(absl::string_view request_id);

// FAILED_PRECONDITION (ANSWER_DROPPED): the request was applied, but its output cannot be computed again.
absl::Status AnswerDropped(absl::string_view name, absl::string_view request_id, int64_t generation);

// FAILED_PRECONDITION (NOT_TRACKED): `field` asks for running statistics of a session that has none.
absl::Status NotTracked(absl::string_view field, absl::string_view name);

// FAILED_PRECONDITION (NOT_AFFINE): parameters for a session without any.
absl::Status NotAffine(absl::string_view name);

}  // namespace normserve
