// A session's history as a store has it: a row a point.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/strings/string_view.h"
#include "server/session/history.h"
#include "server/session/session_content.h"
#include "server/session/session_errors.h"
#include "server/store/state_store.h"

namespace normserve {

// Adds to `write` the points that `before` (null: none) has not.
void WriteHistory(absl::string_view uid, const History* before, const History& after, SessionWrite& write);

// Sets the history of a stored session, which counts `num_updates` by its head, and the newest batch. A point that is
// damaged, missing or not the session's is left out.
void ReadHistory(const StoredPart& session, const StoredSession& stored, int64_t num_updates, size_t num_features,
                 Observations& observations);

}  // namespace normserve
