// A session's history as a store has it: a row a point.
#pragma once

#include <cstddef>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/session/history.h"
#include "server/session/session_errors.h"
#include "server/store/state_store.h"

namespace normserve {

// Of the session of uid `uid`.
StoredPoint WritePoint(absl::string_view uid, size_t slot, const HistoryPoint& point);

// DATA_LOSS (STORED_DATA_LOST), naming `what`: the record is damaged, of a version that is not known, or not that of
// its row.
absl::StatusOr<HistoryPoint> ReadPoint(const StoredPart& what, absl::string_view uid, const StoredPoint& row);

}  // namespace normserve
