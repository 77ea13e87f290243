#include "server/rpc/config_message.h"

#include "absl/strings/str_cat.h"
#include "kernels/error_reason.h"
#include "server/session/field_error.h"

namespace normserve {
namespace {

absl::Status ReadRunningVariance(int variance, SessionConfig& config) {
  if (variance == v1::RUNNING_VARIANCE_UNSPECIFIED) return absl::OkStatus();
  if (variance != v1::RUNNING_VARIANCE_UNBIASED && variance != v1::RUNNING_VARIANCE_BIASED) {
    return FieldError("config.running_variance",
                      absl::StrCat("config.running_variance is ", variance,
                                   ": send RUNNING_VARIANCE_UNBIASED (1) or RUNNING_VARIANCE_BIASED (2)"));
  }
  config.running_variance =
      variance == v1::RUNNING_VARIANCE_BIASED ? RunningVariance::kBiased : RunningVariance::kUnbiased;
  return absl::OkStatus();
}

absl::Status ReadNonFinitePolicy(int policy, SessionConfig& config) {
  if (policy == v1::NON_FINITE_POLICY_UNSPECIFIED) return absl::OkStatus();
  if (policy != v1::NON_FINITE_POLICY_REJECT && policy != v1::NON_FINITE_POLICY_SKIP_UPDATE) {
    return FieldError("config.non_finite_policy",
                      absl::StrCat("config.non_finite_policy is ", policy,
                                   ": send NON_FINITE_POLICY_REJECT (1) or NON_FINITE_POLICY_SKIP_UPDATE (2)"));
  }
  config.non_finite_policy =
      policy == v1::NON_FINITE_POLICY_SKIP_UPDATE ? NonFinitePolicy::kSkipUpdate : NonFinitePolicy::kReject;
  return absl::OkStatus();
}

void ReadAveraging(const v1::SessionConfig& message, SessionConfig& config) {
  switch (message.averaging_case()) {
    case v1::SessionConfig::kMomentum:
      config.momentum = message.momentum();
      break;
    case v1::SessionConfig::kCumulative:
      config.averaging = Averaging::kCumulative;
      break;
    case v1::SessionConfig::kZeroDebiased:
      config.averaging = Averaging::kZeroDebiased;
      if (message.zero_debiased().has_momentum()) config.momentum = message.zero_debiased().momentum();
      break;
    case v1::SessionConfig::AVERAGING_NOT_SET:
      break;
  }
}

v1::Convention WriteConvention(Convention convention) {
  switch (convention) {
    case Convention::kPyTorch:
      return v1::CONVENTION_PYTORCH;
    case Convention::kKeras:
      return v1::CONVENTION_KERAS;
    case Convention::kFlax:
      return v1::CONVENTION_FLAX;
    case Convention::kOnnx:
      return v1::CONVENTION_ONNX;
  }
  return v1::CONVENTION_UNSPECIFIED;
}

}  // namespace

absl::StatusOr<std::optional<Durability>> ReadDurability(int durability) {
  switch (durability) {
    case v1::DURABILITY_UNSPECIFIED:
      return std::optional<Durability>();
    case v1::DURABILITY_NONE:
      return Durability::kNone;
    case v1::DURABILITY_COMMIT:
      return Durability::kCommit;
    case v1::DURABILITY_FLUSH:
      return Durability::kFlush;
    default:
      return FieldError("config.durability",
                        absl::StrCat("config.durability is ", durability,
                                     ": send DURABILITY_NONE (1), _COMMIT (2) or _FLUSH (3), or leave it out"));
  }
}

v1::Durability WriteDurability(Durability durability) {
  return durability == Durability::kNone     ? v1::DURABILITY_NONE
         : durability == Durability::kCommit ? v1::DURABILITY_COMMIT
                                             : v1::DURABILITY_FLUSH;
}

absl::StatusOr<std::optional<Convention>> ReadConvention(absl::string_view field, int convention) {
  switch (convention) {
    case v1::CONVENTION_UNSPECIFIED:
      return std::optional<Convention>();
    case v1::CONVENTION_PYTORCH:
      return Convention::kPyTorch;
    case v1::CONVENTION_KERAS:
      return Convention::kKeras;
    case v1::CONVENTION_FLAX:
      return Convention::kFlax;
    case v1::CONVENTION_ONNX:
      return Convention::kOnnx;
    default:
      return FieldError(field, absl::StrCat(field, " is ", convention,
                                            ": send CONVENTION_PYTORCH (1), _KERAS (2), _FLAX (3) or _ONNX (4)"));
  }
}

absl::StatusOr<SessionConfig> ReadConfig(const v1::SessionConfig& message) {
  const auto convention = ReadConvention("config.convention", message.convention());
  if (!convention.ok()) return convention.status();
  SessionConfig config = ConventionDefaults(convention->value_or(Convention::kPyTorch));
  config.num_features = message.num_features();
  config.labels = {message.labels().begin(), message.labels().end()};
  if (message.has_epsilon()) config.epsilon = message.epsilon();
  ReadAveraging(message, config);
  if (message.has_affine()) config.affine = message.affine();
  if (message.has_track_running_stats()) config.track_running_stats = message.track_running_stats();
  if (absl::Status status = ReadRunningVariance(message.running_variance(), config); !status.ok()) return status;
  if (absl::Status status = ReadNonFinitePolicy(message.non_finite_policy(), config); !status.ok()) return status;
  return config;
}

absl::Status CheckConfigIs(const v1::SessionConfig& message, const std::string& name, const SessionConfig& existing) {
  const auto config = ReadConfig(message);
  if (!config.ok()) return config.status();
  const bool sets_average = message.averaging_case() != v1::SessionConfig::AVERAGING_NOT_SET;
  const bool has_momentum = existing.averaging != Averaging::kCumulative;
  const char* const field =
      message.has_epsilon() && config->epsilon != existing.epsilon                               ? "epsilon"
      : sets_average && config->averaging != existing.averaging                                  ? "averaging"
      : sets_average && has_momentum && config->momentum != existing.momentum                    ? "momentum"
      : message.has_affine() && config->affine != existing.affine                                ? "affine"
      : message.running_variance() != 0 && config->running_variance != existing.running_variance ? "running_variance"
      : message.non_finite_policy() != 0 && config->non_finite_policy != existing.non_finite_policy
          ? "non_finite_policy"
      : message.convention() != 0 && config->convention != existing.convention                    ? "convention"
      : message.durability() != 0 && message.durability() != WriteDurability(existing.durability) ? "durability"
      : !message.labels().empty() && config->labels != existing.labels                            ? "labels"
                                                                                                  : nullptr;
  if (field == nullptr) return absl::OkStatus();
  return MakeError(absl::StatusCode::kFailedPrecondition, ErrorReason::kConventionMismatch,
                   absl::StrCat("config.", field, " is not what session \"", name,
                                "\" has, whose configuration stays: leave it out, or delete the session first"),
                   {{"field", absl::StrCat("config.", field)}, {"session", name}});
}

void WriteConfig(const SessionConfig& config, v1::SessionConfig& message) {
  message.set_num_features(config.num_features);
  message.set_epsilon(config.epsilon);
  switch (config.averaging) {
    case Averaging::kExponential:
      message.set_momentum(config.momentum);
      break;
    case Averaging::kCumulative:
      message.mutable_cumulative();
      break;
    case Averaging::kZeroDebiased:
      message.mutable_zero_debiased()->set_momentum(config.momentum);
      break;
  }
  message.set_affine(config.affine);
  message.set_track_running_stats(config.track_running_stats);
  const bool biased = config.running_variance == RunningVariance::kBiased;
  message.set_running_variance(biased ? v1::RUNNING_VARIANCE_BIASED : v1::RUNNING_VARIANCE_UNBIASED);
  const bool skips = config.non_finite_policy == NonFinitePolicy::kSkipUpdate;
  message.set_non_finite_policy(skips ? v1::NON_FINITE_POLICY_SKIP_UPDATE : v1::NON_FINITE_POLICY_REJECT);
  message.set_convention(WriteConvention(config.convention));
  message.set_durability(WriteDurability(config.durability));
  message.mutable_labels()->insert(config.labels.begin(), config.labels.end());
}

}  // namespace normserve
