#include "server/session/session_draft.h"

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/session/change_guard.h"
#include "server/session/field_error.h"
#include "server/session/session_name.h"

namespace normserve {
namespace {

// Leaves as many counts to batches yet to come, more than any server will ever fold: a commit never overflows.
constexpr int64_t kMaxFirstBatchesTracked = int64_t{1} << 62;

}  // namespace

absl::Status CheckDraft(const SessionDraft& draft, int64_t max_num_features) {
  const int64_t num_features = draft.config.num_features;
  absl::Status status = CheckGuardFields({.request_id = draft.request_id});
  if (status.ok() && !draft.name.empty()) status = CheckSessionName("name", draft.name);
  if (status.ok()) status = CheckConfig(draft.config, max_num_features);
  if (status.ok() && !draft.config.affine && !(draft.parameters.weight.empty() && draft.parameters.bias.empty())) {
    status = FieldError("parameters", "parameters are set, but config.affine is false: leave one of them out");
  }
  if (status.ok() && !draft.config.track_running_stats && draft.statistics.has_value()) {
    status =
        FieldError("statistics", "statistics are set, but config.track_running_stats is false: leave one of them out");
  }
  if (status.ok() && !draft.parameters.weight.empty()) {
    status = CheckVector<float>("parameters.weight", draft.parameters.weight, num_features);
  }
  if (status.ok() && !draft.parameters.bias.empty()) {
    status = CheckVector<float>("parameters.bias", draft.parameters.bias, num_features);
  }
  if (status.ok() && draft.statistics.has_value()) {
    status = CheckVector<double>("statistics.running_mean", draft.statistics->mean, num_features);
    if (status.ok()) status = CheckNonNegative("statistics.running_var", draft.statistics->variance, num_features);
    if (status.ok()) status = CheckFitsFloat("statistics.running_mean", draft.statistics->mean);
    if (status.ok()) status = CheckFitsFloat("statistics.running_var", draft.statistics->variance);
  }
  if (status.ok() && (draft.num_batches_tracked < 0 || draft.num_batches_tracked > kMaxFirstBatchesTracked)) {
    status = FieldError("statistics.num_batches_tracked",
                        absl::StrCat("statistics.num_batches_tracked is ", draft.num_batches_tracked, ": send 0 up to ",
                                     kMaxFirstBatchesTracked));
  }
  return status;
}

Fingerprint FingerprintOf(const SessionDraft& draft) {
  FingerprintBuilder fingerprint("CreateSession");
  fingerprint.Add(absl::string_view(draft.name))
      .Add(draft.config.num_features)
      .Add(draft.config.epsilon)
      .Add(static_cast<int64_t>(draft.config.averaging))
      .Add(draft.config.momentum)
      .Add(static_cast<int64_t>(draft.config.affine))
      .Add(static_cast<int64_t>(draft.config.track_running_stats))
      .Add(static_cast<int64_t>(draft.config.running_variance))
      .Add(static_cast<int64_t>(draft.config.non_finite_policy))
      .Add(static_cast<int64_t>(draft.config.convention))
      .Add(draft.durability.has_value() ? static_cast<int64_t>(*draft.durability) : -1)
      .Add(static_cast<int64_t>(draft.config.labels.size()))
      .Add(static_cast<int64_t>(draft.mode))
      .Add(absl::Span<const float>(draft.parameters.weight))
      .Add(absl::Span<const float>(draft.parameters.bias))
      .Add(draft.num_batches_tracked);
  for (const auto& [key, value] : draft.config.labels) {
    fingerprint.Add(absl::string_view(key)).Add(absl::string_view(value));
  }
  if (draft.statistics.has_value()) {
    fingerprint.Add(absl::Span<const double>(draft.statistics->mean))
        .Add(absl::Span<const double>(draft.statistics->variance));
  }
  return fingerprint.Finish();
}

SessionState FirstState(SessionDraft draft) {
  const size_t num_features = static_cast<size_t>(draft.config.num_features);
  SessionState state{.config = draft.config, .mode = draft.mode, .num_batches_tracked = draft.num_batches_tracked};
  if (draft.parameters.weight.empty()) draft.parameters.weight.assign(num_features, 1.0f);
  if (draft.parameters.bias.empty()) draft.parameters.bias.assign(num_features, 0.0f);
  state.parameters = std::make_shared<const AffineParameters>(std::move(draft.parameters));
  if (!draft.config.track_running_stats) return state;
  if (draft.statistics.has_value()) {
    state.statistics_set_at = SetElsewhere(*draft.statistics, draft.num_batches_tracked);
  } else {
    draft.statistics.emplace();
    draft.statistics->mean.assign(num_features, 0.0);
    draft.statistics->variance.assign(num_features, 1.0);
  }
  state.running = std::make_shared<const NormalizationStatistics>(*std::move(draft.statistics));
  return state;
}

}  // namespace normserve
