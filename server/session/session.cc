#include "server/session/session.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "kernels/error_reason.h"
#include "server/session/field_error.h"
#include "server/session/running_statistics.h"
#include "server/session/session_errors.h"
#include "server/session/session_name.h"

namespace normserve {
namespace {

Fingerprint SnapshotFingerprint(absl::string_view method, const ChangeGuard& guard, absl::string_view name) {
  FingerprintBuilder fingerprint(method);
  AddExpectations(guard, fingerprint);
  return fingerprint.Add(name).Finish();
}

}  // namespace

Session::Admission Session::Admit(const std::string& request_id) const {
  auto [content, may_be_remembered] = journal_->Admit(request_id);
  return Admission{.snapshot = std::move(content.state),
                   .named = std::move(content.snapshots),
                   .may_be_remembered = may_be_remembered};
}

absl::StatusOr<std::optional<ForwardAnswer>> Session::Recall(const std::string& request_id,
                                                             const Fingerprint& fingerprint) const {
  auto recalled = journal_->Recall(request_id, fingerprint);
  if (!recalled.ok()) return recalled.status();
  if (!recalled->has_value()) return std::nullopt;
  auto answer = AnswerAs<ForwardAnswer>(**std::move(recalled), request_id);
  if (!answer.ok()) return answer.status();
  return *std::move(answer);
}

template <typename Answer>
void Session::Make(const ChangeGuard& guard, const Fingerprint& fingerprint, SessionJournal::Make make,
                   Answered<Answer> answered) {
  journal_->Change(
      guard, fingerprint, std::move(make),
      [answered = std::move(answered), id = guard.request_id](absl::StatusOr<normserve::Answer> answer) mutable {
        std::move(answered)(AnswerAs<Answer>(std::move(answer), id));
      });
}

void Session::CommitForward(const ChangeGuard& guard, const Fingerprint& fingerprint, ForwardCommit commit,
                            Answered<ForwardAnswer> answered) {
  // The caller's call holds the session, and the journal only names and numbers of it.
  Make<ForwardAnswer>(
      guard, fingerprint,
      [journal = journal_, commit = std::move(commit)](const SessionContent& newest) {
        return Session(journal).Fold(commit, newest);
      },
      std::move(answered));
}

absl::StatusOr<SessionChange> Session::Fold(const ForwardCommit& commit, const SessionContent& newest) const {
  const SessionState& state = *newest.state;
  if (newest.is_deleted || state.lineage != commit.snapshot->lineage) return LineageChanged(name(), newest.is_deleted);
  ForwardAnswer answer{.generation = state.generation,
                       .snapshot_generation = commit.snapshot->generation,
                       .num_batches_tracked = state.num_batches_tracked,
                       .normalized_with = commit.normalized_with,
                       .update = commit.update,
                       .parameters = commit.snapshot->parameters,
                       .parameters_version = commit.snapshot->parameters_version};
  if (commit.normalized_with == NormalizedWith::kRunning) {
    answer.running = commit.snapshot->running;
    answer.running_version = commit.snapshot->running_version;
  } else if (commit.named != nullptr) {
    answer.running = commit.named->running;
    answer.running_version = commit.named->running_version;
  }
  SessionChange change{.observations = newest.observations};
  if (commit.update == Update::kShadow) {
    const auto& before = newest.observations.shadow;
    change.observations->shadow =
        std::make_shared<const Moments>(MergeMoments(before == nullptr ? Moments{} : *before, commit.moments));
  } else {
    auto next = std::make_shared<SessionState>(state);
    next->num_batches_tracked += 1;
    auto folded = FoldBatch(*state.running, commit.moments, state.config, next->num_batches_tracked);
    if (!folded.ok()) return folded.status();
    next->running = std::make_shared<const NormalizationStatistics>(*std::move(folded));
    next->generation += 1;
    next->update_time = absl::Now();
    change.observations->last_batch = std::make_shared<const Moments>(commit.moments);
    change.observations->history = WithBatch(newest.observations.history.get(), *next, change.observations->last_batch);
    answer.generation = next->generation;
    answer.num_batches_tracked = next->num_batches_tracked;
    change.state = std::move(next);
  }
  change.answer = std::move(answer);
  return change;
}

template <typename Answer>
void Session::Change(const ChangeGuard& guard, const Fingerprint& fingerprint, MakeChange change,
                     Answered<Answer> answered) {
  Make<Answer>(
      guard, fingerprint,
      [journal = journal_, change = std::move(change)](const SessionContent& newest) {
        return change(*journal, newest);
      },
      std::move(answered));
}

void Session::SetMode(const ChangeGuard& guard, Mode mode, Answered<SessionDescription> answered) {
  FingerprintBuilder fingerprint("SetMode");
  AddExpectations(guard, fingerprint);
  fingerprint.Add(static_cast<int64_t>(mode));
  Change(guard, fingerprint.Finish(), ModeChange(mode), std::move(answered));
}

void Session::SetParameters(const ChangeGuard& guard, std::vector<float> weight, std::vector<float> bias,
                            Answered<SessionDescription> answered) {
  const auto snapshot = Snapshot();
  const SessionConfig& config = snapshot->config;
  const int64_t num_features = config.num_features;
  absl::Status status;
  if (!config.affine) {
    status = NotAffine(name());
  } else if (weight.empty() && bias.empty()) {
    status = FieldError("parameters", absl::StrCat("parameters holds neither weight nor bias: send one or both, ",
                                                   num_features, " values each"));
  }
  if (status.ok() && !weight.empty()) status = CheckVector<float>("parameters.weight", weight, num_features);
  if (status.ok() && !bias.empty()) status = CheckVector<float>("parameters.bias", bias, num_features);
  if (!status.ok()) return std::move(answered)(status);

  FingerprintBuilder fingerprint("SetParameters");
  AddExpectations(guard, fingerprint);
  fingerprint.Add(absl::Span<const float>(weight)).Add(absl::Span<const float>(bias));
  Change(guard, fingerprint.Finish(),
         StateChange([weight = std::move(weight), bias = std::move(bias)](const SessionJournal&, const SessionContent&,
                                                                          SessionState& state, Observations&) {
           AffineParameters parameters = *state.parameters;
           if (!weight.empty()) parameters.weight = weight;
           if (!bias.empty()) parameters.bias = bias;
           state.parameters = std::make_shared<const AffineParameters>(std::move(parameters));
           state.lineage += 1;
           return absl::OkStatus();
         }),
         std::move(answered));
}

void Session::TakeSnapshot(const ChangeGuard& guard, std::string name, Answered<SnapshotDescription> answered) {
  if (absl::Status status = CheckSnapshotName("snapshot", name); !status.ok()) return std::move(answered)(status);
  const Fingerprint fingerprint = SnapshotFingerprint("SnapshotState", guard, name);
  Change(guard, fingerprint, SnapshotTaking(std::move(name)), std::move(answered));
}

void Session::RestoreSnapshot(const ChangeGuard& guard, std::string name, Answered<SessionDescription> answered) {
  if (absl::Status status = CheckSnapshotName("snapshot", name); !status.ok()) return std::move(answered)(status);
  const Fingerprint fingerprint = SnapshotFingerprint("RestoreState", guard, name);
  Change(guard, fingerprint, SnapshotRestoring(std::move(name)), std::move(answered));
}

void Session::DeleteSnapshot(const ChangeGuard& guard, std::string name, Answered<SnapshotDescription> answered) {
  if (absl::Status status = CheckSnapshotName("snapshot", name); !status.ok()) return std::move(answered)(status);
  const Fingerprint fingerprint = SnapshotFingerprint("DeleteSnapshot", guard, name);
  Change(guard, fingerprint, SnapshotDeleting(std::move(name)), std::move(answered));
}

void Session::Delete(const ChangeGuard& guard, Remember remember, Answered<Deletion> answered) {
  Make<Deletion>(
      guard, Fingerprint{},
      [journal = journal_, remember = std::move(remember),
       change = SessionDeleting()](const SessionContent& newest) -> absl::StatusOr<SessionChange> {
        auto deletion = change(*journal, newest);
        if (deletion.ok() && remember) deletion->server_request = remember(deletion->answer);
        return deletion;
      },
      std::move(answered));
}

}  // namespace normserve
