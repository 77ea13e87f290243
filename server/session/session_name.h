// Names of sessions: segments joined by '/', such as "resnet50/layer1.0.bn1".
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace normserve {

// INVALID_ARGUMENT, naming `field`, unless `name` is segment('/'segment){0,15} with segments
// [A-Za-z0-9_][A-Za-z0-9._-]{0,62}, 255 bytes at most.
absl::Status CheckSessionName(absl::string_view field, absl::string_view name);

// INVALID_ARGUMENT, naming `field`, unless `name` is one such segment.
absl::Status CheckSnapshotName(absl::string_view field, absl::string_view name);

// A new legal name, "session-" and 16 random hexadecimal digits.
std::string MakeSessionName();

// A new uid: 32 random hexadecimal digits.
std::string MakeSessionUid();

// Whether `text` may be one.
bool IsSessionUid(absl::string_view text);

}  // namespace normserve
