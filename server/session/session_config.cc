#include "server/session/session_config.h"

#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "server/session/field_error.h"

namespace normserve {
namespace {

constexpr size_t kMaxLabels = 64;
constexpr size_t kMaxLabelKeyBytes = 63;
constexpr size_t kMaxLabelValueBytes = 255;

bool IsPrintable(absl::string_view text) {
  for (const char c : text) {
    if (!absl::ascii_isprint(static_cast<unsigned char>(c))) return false;
  }
  return true;
}

}  // namespace

SessionConfig ConventionDefaults(Convention convention) {
  SessionConfig config{.convention = convention};
  if (convention == Convention::kPyTorch) return config;
  config.running_variance = RunningVariance::kBiased;
  if (convention == Convention::kKeras) config.epsilon = 1e-3;
  if (convention != Convention::kOnnx) config.momentum = 0.01;
  return config;
}

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
  if (config.averaging == Averaging::kZeroDebiased && (config.momentum <= 0 || config.momentum > 1)) {
    return FieldError(
        "config.zero_debiased.momentum",
        absl::StrCat("config.zero_debiased.momentum is ", config.momentum, ": send a value above 0 and at most 1"));
  }
  return CheckLabels("config.labels", config.labels);
}

absl::Status CheckLabels(absl::string_view field, const std::map<std::string, std::string>& labels) {
  if (labels.size() > kMaxLabels) {
    return FieldError(field, absl::StrCat(field, " has ", labels.size(), " labels: send at most ", kMaxLabels));
  }
  for (const auto& [key, value] : labels) {
    if (key.empty() || key.size() > kMaxLabelKeyBytes || !IsPrintable(key)) {
      return FieldError(field, absl::StrCat(field, " has the key \"", absl::CHexEscape(key.substr(0, 100)),
                                            "\": keys are 1 to ", kMaxLabelKeyBytes, " bytes of printable ASCII"));
    }
    if (value.size() > kMaxLabelValueBytes || !IsPrintable(value)) {
      return FieldError(field, absl::StrCat(field, "[\"", key, "\"] is \"", absl::CHexEscape(value.substr(0, 100)),
                                            "\", ", value.size(), " bytes: values are up to ", kMaxLabelValueBytes,
                                            " bytes of printable ASCII"));
    }
  }
  return absl::OkStatus();
}

}  // namespace normserve
