#include "server/session/session.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/session/field_error.h"
#include "server/session/running_statistics.h"
#include "server/session/session_errors.h"
#include "server/session/session_name.h"

namespace normserve {
namespace {

// The contract promises the last 1,024 changes.
constexpr size_t kRememberedRequests = 1024;

// Enough for all of them while Forwards use one set of parameters, or normalise with running statistics of up to 150
// channels; a wide session keeps at least the last eight whatever they used, and still two when others keep too much.
VectorLimits LimitsOf(int64_t num_features, std::shared_ptr<VectorBudget> budget) {
  // What one set of parameters and running statistics takes.
  const int64_t state_bytes = 1024 + num_features * static_cast<int64_t>(2 * sizeof(float) + 2 * sizeof(double));
  return VectorLimits{
      .max_bytes = (int64_t{4} << 20) + 8 * state_bytes, .scarce_bytes = 2 * state_bytes, .budget = std::move(budget)};
}

}  // namespace

Session::Session(std::string name, SessionState first, absl::Time create_time, std::shared_ptr<VectorBudget> budget)
    : name_(std::move(name)),
      uid_(MakeSessionUid()),
      create_time_(create_time),
      memory_(kRememberedRequests, LimitsOf(first.config.num_features, std::move(budget))),
      state_(std::make_shared<const SessionState>(std::move(first))) {}

std::shared_ptr<const SessionState> Session::Snapshot() const {
  absl::MutexLock lock(&state_mutex_);
  return state_;
}

Session::Observed Session::Observe() const {
  absl::MutexLock lock(&state_mutex_);
  return Observed{.state = state_, .observations = observations_};
}

SessionDescription Session::Describe(const SessionState& state) const {
  return SessionDescription{.name = name_,
                            .uid = uid_,
                            .config = state.config,
                            .mode = state.mode,
                            .generation = state.generation,
                            .num_batches_tracked = state.num_batches_tracked,
                            .create_time = create_time_,
                            .update_time = state.update_time};
}

Session::Admission Session::Admit(const std::string& request_id) const {
  if (request_id.empty()) return Admission{.snapshot = Snapshot()};
  absl::MutexLock lock(&commit_mutex_);
  return Admission{.snapshot = Snapshot(), .is_remembered = memory_.Contains(request_id)};
}

absl::StatusOr<std::optional<ForwardAnswer>> Session::Recall(const std::string& request_id,
                                                             const Fingerprint& fingerprint) const {
  absl::MutexLock lock(&commit_mutex_);
  const auto found = memory_.Find<ForwardAnswer>(request_id, fingerprint);
  if (!found.ok()) return found.status();
  if (*found == nullptr) return std::nullopt;
  return **found;
}

absl::StatusOr<ForwardAnswer> Session::CommitForward(const ChangeGuard& guard, const Fingerprint& fingerprint,
                                                     const ForwardCommit& commit) {
  absl::MutexLock lock(&commit_mutex_);
  const auto found = memory_.Find<ForwardAnswer>(guard.request_id, fingerprint);
  if (!found.ok()) return found.status();
  if (*found != nullptr) return **found;

  const auto [newest, observations] = Observe();
  if (is_deleted_ || newest->lineage != commit.snapshot->lineage) return LineageChanged(name_, is_deleted_);
  if (absl::Status status = CheckExpectations(guard, name_, uid_, newest->generation); !status.ok()) return status;

  SessionState next = *newest;
  Observations observed = observations;
  if (commit.update == Update::kShadow) {
    const Moments before = observed.shadow == nullptr ? Moments{} : *observed.shadow;
    observed.shadow = std::make_shared<const Moments>(MergeMoments(before, commit.moments));
  } else {
    next.num_batches_tracked += 1;
    auto folded = FoldBatch(*newest->running, commit.moments, newest->config, next.num_batches_tracked);
    if (!folded.ok()) return folded.status();
    next.running = std::make_shared<const NormalizationStatistics>(*std::move(folded));
    next.generation += 1;
    next.update_time = absl::Now();
    observed.last_batch = std::make_shared<const Moments>(commit.moments);
  }

  ForwardAnswer answer{.generation = next.generation,
                       .snapshot_generation = commit.snapshot->generation,
                       .num_batches_tracked = next.num_batches_tracked,
                       .normalized_with = commit.normalized_with,
                       .update = commit.update,
                       .parameters = commit.snapshot->parameters};
  if (commit.normalized_with == NormalizedWith::kRunning) answer.running = commit.snapshot->running;
  memory_.Remember(guard.request_id, fingerprint, answer);
  Publish(std::move(next), std::move(observed));
  return answer;
}

absl::StatusOr<SessionDescription> Session::SetMode(const ChangeGuard& guard, Mode mode) {
  FingerprintBuilder fingerprint("SetMode");
  AddExpectations(guard, fingerprint);
  fingerprint.Add(static_cast<int64_t>(mode));
  return ChangeState(guard, fingerprint.Finish(), [mode](SessionState& state, Observations& observations) {
    state.mode = mode;
    if (mode == Mode::kShadow) observations.shadow = nullptr;
  });
}

absl::StatusOr<SessionDescription> Session::SetParameters(const ChangeGuard& guard, std::vector<float> weight,
                                                          std::vector<float> bias) {
  const SessionConfig config = Snapshot()->config;
  const int64_t num_features = config.num_features;
  if (!config.affine) return NotAffine(name_);
  if (weight.empty() && bias.empty()) {
    return FieldError("parameters", absl::StrCat("parameters holds neither weight nor bias: send one or both, ",
                                                 num_features, " values each"));
  }
  absl::Status status;
  if (!weight.empty()) status = CheckVector<float>("parameters.weight", weight, num_features);
  if (status.ok() && !bias.empty()) status = CheckVector<float>("parameters.bias", bias, num_features);
  if (!status.ok()) return status;

  FingerprintBuilder fingerprint("SetParameters");
  AddExpectations(guard, fingerprint);
  fingerprint.Add(absl::Span<const float>(weight)).Add(absl::Span<const float>(bias));
  return ChangeState(guard, fingerprint.Finish(), [&](SessionState& state, Observations&) {
    AffineParameters parameters = *state.parameters;
    if (!weight.empty()) parameters.weight = std::move(weight);
    if (!bias.empty()) parameters.bias = std::move(bias);
    state.parameters = std::make_shared<const AffineParameters>(std::move(parameters));
    state.lineage += 1;
  });
}

absl::StatusOr<Deletion> Session::Delete(const ChangeGuard& guard) {
  absl::MutexLock lock(&commit_mutex_);
  if (is_deleted_) return SessionNotFound(name_);
  const int64_t generation = Snapshot()->generation;
  if (absl::Status status = CheckExpectations(guard, name_, uid_, generation); !status.ok()) return status;
  is_deleted_ = true;
  return Deletion{.uid = uid_, .generation = generation};
}

template <typename Change>
absl::StatusOr<SessionDescription> Session::ChangeState(const ChangeGuard& guard, const Fingerprint& fingerprint,
                                                        Change change) {
  absl::MutexLock lock(&commit_mutex_);
  const auto found = memory_.Find<SessionDescription>(guard.request_id, fingerprint);
  if (!found.ok()) return found.status();
  if (*found != nullptr) return **found;
  if (is_deleted_) return SessionNotFound(name_);

  auto [newest, observations] = Observe();
  SessionState next = *newest;
  if (absl::Status status = CheckExpectations(guard, name_, uid_, next.generation); !status.ok()) return status;
  change(next, observations);
  next.generation += 1;
  next.update_time = absl::Now();
  SessionDescription description = Describe(next);
  memory_.Remember(guard.request_id, fingerprint, description);
  Publish(std::move(next), std::move(observations));
  return description;
}

void Session::Publish(SessionState next, Observations observations) {
  auto state = std::make_shared<const SessionState>(std::move(next));
  absl::MutexLock lock(&state_mutex_);
  // What was there is freed after the lock.
  state_.swap(state);
  std::swap(observations_, observations);
}

}  // namespace normserve
