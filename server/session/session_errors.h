// The errors that concern a session as a whole.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace normserve {

// NOT_FOUND (SESSION_NOT_FOUND).
absl::Status SessionNotFound(absl::string_view name);
// No session is below `prefix`, which ends in '/'.
absl::Status ModelNotFound(absl::string_view prefix);

// ALREADY_EXISTS (SESSION_EXISTS); `field` held the name.
absl::Status SessionExists(absl::string_view field, absl::string_view name);

// ABORTED (LINEAGE_CHANGED): what a batch was computed for is gone.
absl::Status LineageChanged(absl::string_view name, bool is_deleted);

// INVALID_ARGUMENT (REQUEST_ID_REUSED).
absl::Status RequestIdReused(absl::string_view request_id);

// FAILED_PRECONDITION (ANSWER_DROPPED): the request was applied, but its output cannot be computed again.
absl::Status AnswerDropped(absl::string_view name, absl::string_view request_id, int64_t generation);

// FAILED_PRECONDITION (NOT_TRACKED): `field` asks for running statistics of a session that has none.
absl::Status NotTracked(absl::string_view field, absl::string_view name,
                        absl::string_view advice = "normalise with the batch and update NONE");

// FAILED_PRECONDITION (NOT_AFFINE): parameters for a session without any.
absl::Status NotAffine(absl::string_view name);

// FAILED_PRECONDITION (DURABILITY_UNAVAILABLE): COMMIT or FLUSH without a store.
absl::Status DurabilityUnavailable(absl::string_view durability);

// NOT_FOUND (SNAPSHOT_NOT_FOUND).
absl::Status SnapshotNotFound(absl::string_view session, absl::string_view snapshot);

// ALREADY_EXISTS (SNAPSHOT_EXISTS).
absl::Status SnapshotExists(absl::string_view session, absl::string_view snapshot);

// NOT_FOUND (COLLECTION_NOT_FOUND): session or model `name` has no part of `collection`, such as "merge \"m\"".
absl::Status CollectionNotFound(absl::string_view name, absl::string_view collection);

// FAILED_PRECONDITION (COLLECTION_COMMITTED): a late part.
absl::Status CollectionCommitted(absl::string_view session, absl::string_view collection, int64_t num_parts,
                                 int64_t generation);

// FAILED_PRECONDITION (COLLECTION_COMMITTED): it was committed with other choices than this commit asks for.
absl::Status CommittedOtherwise(absl::string_view session, absl::string_view collection, absl::string_view first,
                                absl::string_view asked);

// RESOURCE_EXHAUSTED (LIMIT_REACHED): `used_bytes` of `max_bytes` of state are in use, and `needed_bytes` more are
// asked.
absl::Status StateBytesReached(int64_t max_bytes, int64_t used_bytes, int64_t needed_bytes);

// A part of what a store holds of a session, as errors name it.
struct StoredPart {
  std::string location;  // of the store
  std::string session;   // its name; one that is not legal is shown escaped
  std::string part = "configuration";
  std::string way_out = "delete the session";  // without a copy

  StoredPart Of(absl::string_view other_part) const { return {location, session, std::string(other_part), way_out}; }
  // Of a snapshot: the rest of the session is there without it.
  StoredPart OfSnapshot(absl::string_view name) const;
};

// DATA_LOSS (STORED_DATA_LOST): `part` is damaged, as `detail` says.
absl::Status StoredDataLost(const StoredPart& part, absl::string_view detail);

}  // namespace normserve
