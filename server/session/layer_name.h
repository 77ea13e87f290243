// Between the path of a layer in a framework's model, such as "backbone.layer1.0.bn1", and its session's name.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace normserve {

// The session that layer `path` becomes under `target`: a model, ending in '/', whose layers have paths; or a session,
// whose layer has none. A path of up to 63 bytes is one segment; a longer one is cut at the last '.' that leaves at
// most 63, and what follows it likewise. INVALID_ARGUMENT, naming `path`: it is empty below a model, or not empty
// otherwise; no legal name comes of it.
absl::StatusOr<std::string> SessionNameOfLayer(absl::string_view target, absl::string_view path);

// The path of session `name` under `target`, below which it is: each '/' is a '.' again. Empty where it is `target`.
std::string PathOfLayer(absl::string_view target, absl::string_view name);

}  // namespace normserve
