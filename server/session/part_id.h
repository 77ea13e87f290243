// The ids of parts: what makes that data sent again counts once.
#pragma once

#include <cstddef>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace normserve {

constexpr size_t kMaxPartIdBytes = 255;

// INVALID_ARGUMENT unless `id`, of `field`, is at most 255 printable ASCII characters; and, if `is_required`, at least
// one.
absl::Status CheckPartId(const std::string& field, absl::string_view id, bool is_required);

// INVALID_ARGUMENT (PART_CONFLICT): session `session` has other data under this id.
absl::Status PartConflict(const std::string& session, const std::string& id);

}  // namespace normserve
