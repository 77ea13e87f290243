// What a session gathers, as rows of a store.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/strings/string_view.h"
#include "server/session/collection.h"
#include "server/session/session_errors.h"
#include "server/store/state_store.h"

namespace normserve {

// Adds to `write` the rows that make `after` of `before`, which may be null.
void WriteCollections(absl::string_view uid, const std::shared_ptr<const Collections>& before, const Collections& after,
                      SessionWrite& write);

// Those of a stored session, which has `num_rows` by its head; null if there are none. A collection with a damaged row
// is lost by itself; where rows are missing, nobody knows of which, so all are that are not committed.
std::shared_ptr<const Collections> ReadCollections(const StoredPart& session, const StoredSession& stored,
                                                   int64_t num_rows, int64_t num_features);

}  // namespace normserve
