// The answers to the last changes as a store has them: of a session, or of the server as a whole.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/session/fingerprint.h"
#include "server/session/request_memory.h"
#include "server/session/session_errors.h"
#include "server/store/state_store.h"

namespace normserve {

// A remembered request. Of a ForwardAnswer's vectors the versions are kept; kNoVersion where it has none.
struct RememberedRequest {
  Fingerprint fingerprint;
  Answer answer;
};

// Where requests are remembered: request n in slot n % num_slots.
struct RequestRing {
  std::string uid;  // of the session; empty: the server's
  int64_t num_slots = 0;
};
StoredRequest WriteRequest(const RequestRing& ring, int64_t sequence, const std::string& request_id,
                           const RememberedRequest& request);

// DATA_LOSS (STORED_DATA_LOST), naming `what`: the record is damaged, of a version that is not known, or not that of
// its row.
absl::StatusOr<RememberedRequest> ReadRequest(const StoredPart& what, const RequestRing& ring,
                                              const StoredRequest& row);

// Hands the rows of a ring to `take`, oldest first; of rows with the same id the newest alone: a write that was refused
// leaves in its slot what was there before. What is wrong with a damaged row goes to `lost`.
void ReadRequests(const StoredPart& what, const RequestRing& ring, const std::vector<StoredRequest>& rows,
                  absl::FunctionRef<void(const StoredRequest& row, RememberedRequest request)> take,
                  absl::FunctionRef<void(absl::Status damage)> lost);

}  // namespace normserve
