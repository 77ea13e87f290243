#include "server/session/session_registry.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "kernels/error_reason.h"
#include "server/session/field_error.h"
#include "server/session/page_token.h"
#include "server/session/session_errors.h"
#include "server/session/session_name.h"

namespace normserve {
namespace {

constexpr int64_t kDefaultPageSize = 100;
constexpr int64_t kMaxPageSize = 1000;
// Leaves as many counts to batches yet to come, more than any server will ever fold: a commit never overflows.
constexpr int64_t kMaxFirstBatchesTracked = int64_t{1} << 62;

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
      .Add(static_cast<int64_t>(draft.mode))
      .Add(absl::Span<const float>(draft.parameters.weight))
      .Add(absl::Span<const float>(draft.parameters.bias))
      .Add(draft.num_batches_tracked);
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
  if (!draft.statistics.has_value()) {
    draft.statistics.emplace();
    draft.statistics->mean.assign(num_features, 0.0);
    draft.statistics->variance.assign(num_features, 1.0);
  }
  state.running = std::make_shared<const NormalizationStatistics>(*std::move(draft.statistics));
  return state;
}

absl::Status LimitReached(absl::string_view limit, absl::string_view message) {
  return MakeError(absl::StatusCode::kResourceExhausted, ErrorReason::kLimitReached, message,
                   {{"limit", std::string(limit)}});
}

}  // namespace

absl::StatusOr<SessionDescription> SessionRegistry::Create(SessionDraft draft) {
  if (absl::Status status = CheckDraft(draft, limits_.max_num_features); !status.ok()) return status;
  const Fingerprint fingerprint = FingerprintOf(draft);
  const std::string request_id = draft.request_id;
  const int64_t state_bytes = StateSizeBytes(draft.config.num_features);
  std::string name = draft.name.empty() ? MakeSessionName() : draft.name;
  {
    // Before the vectors are made. Looked at again below, as others may come in between.
    absl::ReaderMutexLock lock(&mutex_);
    const auto found = memory_.Find<SessionDescription>(request_id, fingerprint);
    if (!found.ok()) return found.status();
    if (*found != nullptr) return **found;
    if (absl::Status status = CheckRoom("name", name, state_bytes); !status.ok()) return status;
  }
  SessionState state = FirstState(std::move(draft));
  absl::MutexLock lock(&mutex_);
  const auto found = memory_.Find<SessionDescription>(request_id, fingerprint);
  if (!found.ok()) return found.status();
  if (*found != nullptr) return **found;
  if (absl::Status status = CheckRoom("name", name, state_bytes); !status.ok()) return status;
  SessionDescription description = Insert(std::move(name), std::move(state));
  memory_.Remember(request_id, fingerprint, description);
  return description;
}

absl::StatusOr<std::shared_ptr<Session>> SessionRegistry::Find(absl::string_view name) const {
  if (absl::Status status = CheckSessionName("name", name); !status.ok()) return status;
  absl::ReaderMutexLock lock(&mutex_);
  const auto found = sessions_.find(name);
  if (found == sessions_.end()) return SessionNotFound(name);
  return found->second;
}

absl::StatusOr<SessionPage> SessionRegistry::List(absl::string_view prefix, int64_t page_size,
                                                  absl::string_view page_token) const {
  const absl::string_view parent = absl::StripSuffix(prefix, "/");
  if (!prefix.empty()) {
    if (absl::Status status = CheckSessionName("prefix", parent); !status.ok()) return status;
  }
  if (page_size < 0 || page_size > kMaxPageSize) {
    return FieldError("page_size", absl::StrCat("page_size is ", page_size, ": send 0 up to ", kMaxPageSize));
  }
  if (page_size == 0) page_size = kDefaultPageSize;
  std::string last_name;
  if (!page_token.empty()) {
    auto read = ReadPageToken(parent, page_token);
    if (!read.ok()) return read.status();
    last_name = *std::move(read);
  }

  SessionPage page;
  const auto take = [&](const std::shared_ptr<Session>& session) {
    if (static_cast<int64_t>(page.sessions.size()) == page_size) {
      page.next_page_token = MakePageToken(parent, page.sessions.back()->name());
      return false;
    }
    page.sessions.push_back(session);
    return true;
  };
  // Between "a" and "a/" other names may stand, such as "a-b", so the session `parent` itself is taken first.
  const std::string below = parent.empty() ? "" : absl::StrCat(parent, "/");
  absl::ReaderMutexLock lock(&mutex_);
  if (!parent.empty() && last_name.empty()) {
    if (const auto self = sessions_.find(parent); self != sessions_.end()) take(self->second);
  }
  auto at = last_name < below ? sessions_.lower_bound(below) : sessions_.upper_bound(last_name);
  for (; at != sessions_.end() && absl::StartsWith(at->first, below); ++at) {
    if (!take(at->second)) break;
  }
  return page;
}

absl::StatusOr<SessionDescription> SessionRegistry::Clone(absl::string_view name, const ChangeGuard& guard,
                                                          std::string clone_name) {
  absl::Status status = CheckGuardFields(guard);
  if (status.ok()) status = CheckSessionName("name", name);
  if (status.ok() && !clone_name.empty()) status = CheckSessionName("clone_name", clone_name);
  if (!status.ok()) return status;
  FingerprintBuilder builder("CloneSession");
  AddExpectations(guard, builder);
  const Fingerprint fingerprint = builder.Add(name).Add(absl::string_view(clone_name)).Finish();

  absl::MutexLock lock(&mutex_);
  const auto remembered = memory_.Find<SessionDescription>(guard.request_id, fingerprint);
  if (!remembered.ok()) return remembered.status();
  if (*remembered != nullptr) return **remembered;
  const auto source = sessions_.find(name);
  if (source == sessions_.end()) return SessionNotFound(name);
  SessionState state = *source->second->Snapshot();
  status = CheckExpectations(guard, name, source->second->uid(), state.generation);
  if (!status.ok()) return status;
  if (clone_name.empty()) clone_name = MakeSessionName();
  status = CheckRoom("clone_name", clone_name, StateSizeBytes(state.config.num_features));
  if (!status.ok()) return status;
  state.generation = 0;
  state.lineage = 0;
  SessionDescription description = Insert(std::move(clone_name), std::move(state));
  memory_.Remember(guard.request_id, fingerprint, description);
  return description;
}

absl::StatusOr<Deletion> SessionRegistry::Delete(absl::string_view name, const ChangeGuard& guard) {
  absl::Status status = CheckGuardFields(guard);
  if (status.ok()) status = CheckSessionName("name", name);
  if (!status.ok()) return status;
  FingerprintBuilder builder("DeleteSession");
  AddExpectations(guard, builder);
  const Fingerprint fingerprint = builder.Add(name).Finish();

  absl::MutexLock lock(&mutex_);
  const auto remembered = memory_.Find<Deletion>(guard.request_id, fingerprint);
  if (!remembered.ok()) return remembered.status();
  if (*remembered != nullptr) return **remembered;
  const auto found = sessions_.find(name);
  if (found == sessions_.end()) return SessionNotFound(name);
  auto deletion = found->second->Delete(guard);
  if (!deletion.ok()) return deletion.status();
  state_bytes_ -= StateSizeBytes(found->second->Snapshot()->config.num_features);
  sessions_.erase(found);
  memory_.Remember(guard.request_id, fingerprint, *deletion);
  return deletion;
}

SessionRegistry::Usage SessionRegistry::GetUsage() const {
  absl::ReaderMutexLock lock(&mutex_);
  return Usage{.num_sessions = static_cast<int64_t>(sessions_.size()), .state_bytes = state_bytes_};
}

absl::Status SessionRegistry::CheckRoom(absl::string_view field, const std::string& name, int64_t state_bytes) const {
  if (sessions_.contains(name)) return SessionExists(field, name);
  if (static_cast<int64_t>(sessions_.size()) >= limits_.max_sessions) {
    return LimitReached("max_sessions", absl::StrCat("max_sessions is ", limits_.max_sessions, " and ",
                                                     sessions_.size(), " are open: delete some or raise the limit"));
  }
  if (state_bytes > limits_.max_state_bytes - state_bytes_) {
    return LimitReached("max_state_bytes", absl::StrCat("max_state_bytes is ", limits_.max_state_bytes, ", ",
                                                        state_bytes_, " are in use and the new session takes ",
                                                        state_bytes, ": delete some sessions or raise the limit"));
  }
  return absl::OkStatus();
}

SessionDescription SessionRegistry::Insert(std::string name, SessionState state) {
  const absl::Time now = absl::Now();
  state.update_time = now;
  state_bytes_ += StateSizeBytes(state.config.num_features);
  auto session = std::make_shared<Session>(name, std::move(state), now, vector_budget_);
  SessionDescription description = session->Describe(*session->Snapshot());
  sessions_.emplace(std::move(name), std::move(session));
  return description;
}

}  // namespace normserve
