// A session as rows of a store: those that a change makes, and all of them read back. stored_* has the rows of a kind.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "server/session/session_content.h"
#include "server/session/session_errors.h"
#include "server/session/session_state.h"
#include "server/session/stored_requests.h"
#include "server/session/stored_vectors.h"
#include "server/store/state_store.h"

namespace normserve {

// Sets in `write` the rows of a new session.
void WriteNewSession(const SessionIdentity& identity, const SessionContent& content, SessionWrite& write);

// Sets in `write`, which has its sequence, the rows that make `after` of `before`. `num_remembered`: requests so far,
// of this change too. What the session remembers of them is the journal's to add.
void WriteChange(const SessionIdentity& identity, const SessionContent& before, const SessionContent& after,
                 int64_t num_remembered, SessionWrite& write);

struct RestoredSession {
  SessionIdentity identity;
  SessionContent content;
  int64_t num_remembered = 0;  // as SessionHead's
};
// DATA_LOSS (STORED_DATA_LOST), naming a part of `session`: a record is damaged, or a vector is missing.
absl::StatusOr<RestoredSession> ReadSession(const StoredPart& session, const StoredSession& stored);

// What a session remembers of its requests.
struct RestoredMemory {
  std::vector<std::pair<std::string, RememberedRequest>>
      requests;           // by id, oldest first; with what they need of vectors
  StoredVectors vectors;  // kept ones, and the newest
  int64_t num_remembered = 0;
};
// Of a session whose state is `newest` and whose head says `num_remembered`. DATA_LOSS, as above: of a request or a
// kept vector the record is damaged, or there are others than that number says.
absl::StatusOr<RestoredMemory> ReadMemory(const StoredPart& session, const RequestRing& ring,
                                          const StoredMemory& stored, const SessionState& newest,
                                          int64_t num_remembered);

}  // namespace normserve
