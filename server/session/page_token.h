// Where a listing goes on: opaque to clients, of use only with the prefix it was made for.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace normserve {

// A token for the page of `prefix` that begins after `last_name`.
std::string MakePageToken(absl::string_view prefix, absl::string_view last_name);

// The `last_name` in `token`. INVALID_ARGUMENT: it is not a token of ours, or belongs to another prefix.
absl::StatusOr<std::string> ReadPageToken(absl::string_view prefix, absl::string_view token);

}  // namespace normserve
