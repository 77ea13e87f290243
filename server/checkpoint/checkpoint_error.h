// What is wrong with a checkpoint file, as a status.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace normserve {

// INVALID_ARGUMENT (INVALID_FIELD) about the field `data`. `message` says what the file holds and what would be right.
absl::Status CheckpointError(absl::string_view message);

// A name out of a file, as messages show it: quoted, escaped where it is not printable, cut where it is long.
std::string Quoted(absl::string_view name);

}  // namespace normserve
