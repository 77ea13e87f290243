#include "server/session/session_config.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "server/session/field_error.h"

namespace normserve {

absl::Status CheckConfig(const SessionConfig& config, int64_t max_num_features) {
  if (config.num_features < 1 || config.num_features > max_num_features) {
    return FieldError("config.num_features",
                      absl::StrCat("config.num_features is ", config.num_features, ": send 1 up to ", max_num_features),
                      {{"limit", "max_num_features"}, {"limit_value", absl::StrCat(max_num_features)}});
  }
  if (!std::isfinite(config.epsilon) || config.epsilon < 0) {
    return FieldError("config.epsilon",
                      absl::StrCat("config.epsilon is ", config.epsilon, ": send a finite value, zero or more"));
  }
  if (!std::isfinite(config.momentum)) {
    return FieldError("config.momentum", absl::StrCat("config.momentum is ", config.momentum, ": send a finite value"));
  }
  return absl::OkStatus();
}

}  // namespace normserve
