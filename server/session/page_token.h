// Where a listing goes on: opaque to clients, of use only with the listing it was made for.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace normserve {

// Of the sessions below a prefix, or of the snapshots of a session or a model: `of` is its name.
enum class Listing { kSessions, kSnapshots };

// A token for the page that begins after `last_name`.
std::string MakePageToken(Listing listing, absl::string_view of, absl::string_view last_name);

// The `last_name` in `token`. INVALID_ARGUMENT: it is not a token of ours, or belongs to another listing.
absl::StatusOr<std::string> ReadPageToken(Listing listing, absl::string_view of, absl::string_view token);

}  // namespace normserve
