#include "server/session/model_import.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "kernels/error_reason.h"
#include "server/session/field_error.h"
#include "server/session/session_draft.h"
#include "server/session/session_errors.h"
#include "server/session/session_name.h"
#include "server/session/statistics_convention.h"
#include "server/session/stored_requests.h"

namespace normserve {
namespace {

// Says which layer an error is about.
absl::Status OfLayer(const std::string& name, const absl::Status& status) {
  absl::Status named(status.code(), absl::StrCat("layer of session \"", name, "\": ", std::string(status.message())));
  status.ForEachPayload([&](auto url, const absl::Cord& payload) { named.SetPayload(url, payload); });
  return named;
}

// As a session of its own would be created.
SessionDraft DraftOf(const ImportDraft& import, const ImportedLayer& layer) {
  SessionDraft draft{.name = layer.name,
                     .request_id = import.request_id,
                     .config = import.config,
                     .durability = import.durability,
                     .mode = import.mode,
                     .parameters = layer.parameters,
                     .statistics = layer.statistics,
                     .num_batches_tracked = layer.num_batches_tracked.value_or(0)};
  draft.config.num_features = static_cast<int64_t>(layer.statistics.mean.size());
  draft.config.affine = import.affine.value_or(!layer.parameters.weight.empty() || !layer.parameters.bias.empty());
  return draft;
}

absl::Status AlreadyOpen(const std::string& first, size_t num_others) {
  return MakeError(
      absl::StatusCode::kAlreadyExists, ErrorReason::kSessionExists,
      absl::StrCat("session \"", first, "\"",
                   num_others == 0 ? " is" : absl::StrCat(" and ", num_others, " more for layers of the file are"),
                   " open already: set existing to EXISTING_SESSION_REPLACE (2) or _SKIP (3), or delete first"),
      {{"field", "existing"}, {"session", first}});
}

ImportAnswer::Part PartOf(absl::string_view uid, int64_t generation, ImportAction action) {
  ImportAnswer::Part part{.generation = generation, .action = action};
  uid.copy(part.uid.data(), part.uid.size());
  return part;
}

}  // namespace

void ModelImport::Start(SessionRegistry& registry, ImportDraft draft, Answered answered) {
  const std::shared_ptr<ModelImport> self(new ModelImport(registry, std::move(draft), std::move(answered)));
  if (absl::Status status = self->Check(); !status.ok()) return std::move(self->answered_)(status);
  self->Run();
}

absl::Status ModelImport::Check() {
  draft_.config.durability = draft_.durability.value_or(registry_.default_durability());
  if (draft_.config.durability != Durability::kNone && registry_.surroundings_.store == nullptr) {
    return DurabilityUnavailable(draft_.config.durability == Durability::kCommit ? "COMMIT" : "FLUSH");
  }
  FingerprintBuilder fingerprint("ImportState");
  fingerprint.Add(absl::string_view(draft_.name))
      .Add(static_cast<int64_t>(draft_.existing))
      .Add(draft_.kept_variance.has_value() ? static_cast<int64_t>(*draft_.kept_variance) : -1)
      .Add(draft_.values_per_channel);
  for (const ImportedLayer& layer : draft_.layers) {
    const SessionDraft session = DraftOf(draft_, layer);
    absl::Status status = CheckDraft(session, registry_.limits().max_num_features);
    if (!status.ok()) return OfLayer(layer.name, status);
    const Fingerprint part = FingerprintOf(session);
    fingerprint.Add(static_cast<int64_t>(part.low)).Add(static_cast<int64_t>(part.high));
  }
  fingerprint_ = fingerprint.Finish();
  parts_.resize(draft_.layers.size());
  return absl::OkStatus();
}

void ModelImport::Run() {
  while (true) {
    SessionRegistry::Known known;
    {
      absl::MutexLock lock(&registry_.mutex_);
      known = Lookup();
      if (known.pending != nullptr) {
        known.pending->waiters.push_back([self = shared_from_this()] { self->Run(); });
        return;
      }
    }
    if (known.answer.has_value()) return AnswerAgain(*std::move(known.answer));
    bool is_outdated = false;
    absl::Status status = FindExisting();
    if (status.ok()) {
      absl::MutexLock lock(&registry_.mutex_);
      status = TakeNames(&is_outdated);
    }
    if (!status.ok()) return std::move(answered_)(status);
    if (!is_outdated) return Store();
  }
}

SessionRegistry::Known ModelImport::Lookup() const {
  auto known = registry_.Lookup(draft_.request_id, fingerprint_);
  if (known.answer.has_value() || known.pending != nullptr) return known;
  for (const ImportedLayer& layer : draft_.layers) {
    const auto found = registry_.sessions_.find(layer.name);
    if (found != registry_.sessions_.end() && found->second.pending != nullptr)
      return {.pending = found->second.pending};
  }
  return known;
}

absl::Status ModelImport::FindExisting() {
  std::vector<size_t> existing;
  {
    absl::ReaderMutexLock lock(&registry_.mutex_);
    for (size_t i = 0; i < parts_.size(); ++i) {
      if (registry_.sessions_.contains(draft_.layers[i].name)) existing.push_back(i);
    }
  }
  if (!existing.empty() && draft_.existing == ExistingSession::kRefuse) {
    return AlreadyOpen(draft_.layers[existing[0]].name, existing.size() - 1);
  }
  for (Part& part : parts_) part.session = nullptr;
  for (const size_t i : existing) {
    auto session = registry_.FindNamed(draft_.layers[i].name);
    if (absl::IsNotFound(session.status())) continue;  // deleted since
    if (!session.ok()) return session.status();
    parts_[i].session = *std::move(session);
    parts_[i].action = draft_.existing == ExistingSession::kReplace ? ImportAction::kReplaced : ImportAction::kSkipped;
  }
  for (size_t i = 0; i < parts_.size(); ++i) {
    if (parts_[i].session != nullptr || parts_[i].first != nullptr) continue;
    const ImportedLayer& layer = draft_.layers[i];
    SessionDraft draft = DraftOf(draft_, layer);
    auto statistics = StatisticsFor(layer, draft.config);
    if (!statistics.ok()) return OfLayer(layer.name, statistics.status());
    draft.statistics = *std::move(statistics);
    parts_[i].first = std::make_shared<const SessionState>(FirstState(std::move(draft)));
  }
  return absl::OkStatus();
}

absl::StatusOr<NormalizationStatistics> ModelImport::StatisticsFor(const ImportedLayer& layer,
                                                                   const SessionConfig& config) const {
  return ConvertStatistics(layer.name, layer.statistics, config,
                           {.from = draft_.kept_variance.value_or(config.running_variance),
                            .to = config.running_variance,
                            .num_batches_tracked = layer.num_batches_tracked,
                            .values_per_channel = draft_.values_per_channel});
}

absl::Status ModelImport::TakeNames(bool* is_outdated) {
  // Others may have come in between.
  const SessionRegistry::Known known = Lookup();
  *is_outdated = known.answer.has_value() || known.pending != nullptr;
  int64_t num_opened = 0, state_bytes = 0;
  for (size_t i = 0; i < parts_.size() && !*is_outdated; ++i) {
    const auto found = registry_.sessions_.find(draft_.layers[i].name);
    const bool is_there = found != registry_.sessions_.end();
    *is_outdated = parts_[i].session == nullptr ? is_there : !is_there || found->second.session != parts_[i].session;
    if (parts_[i].session != nullptr) continue;
    ++num_opened;
    state_bytes += SessionSizeBytes(parts_[i].first->config.num_features);
  }
  if (*is_outdated) return absl::OkStatus();
  const auto num_open = static_cast<int64_t>(registry_.sessions_.size());
  if (num_opened > registry_.limits_.max_sessions - num_open) {
    return MakeError(absl::StatusCode::kResourceExhausted, ErrorReason::kLimitReached,
                     absl::StrCat("max_sessions is ", registry_.limits_.max_sessions, ", ", num_open, " are open and ",
                                  num_opened, " layers need one each: delete some or raise the limit"),
                     {{"limit", "max_sessions"}});
  }
  StateBudget& budget = *registry_.surroundings_.state_budget;
  if (!budget.TryTake(state_bytes)) return StateBytesReached(budget.max_bytes(), budget.bytes(), state_bytes);

  pending_ = std::make_shared<Pending>();
  const absl::Time now = absl::Now();
  for (size_t i = 0; i < parts_.size(); ++i) {
    if (parts_[i].session != nullptr) continue;
    auto first = std::make_shared<SessionState>(*parts_[i].first);
    first->update_time = now;
    parts_[i].action = ImportAction::kCreated;
    parts_[i].session = std::make_shared<Session>(SessionJournal::New(
        {.name = draft_.layers[i].name, .uid = MakeSessionUid(), .create_time = now},
        {.state = std::move(first), .snapshots = std::make_shared<const Snapshots>()}, registry_.surroundings_));
    registry_.sessions_[draft_.layers[i].name] = {.session = parts_[i].session, .pending = pending_};
  }
  if (!draft_.request_id.empty()) {
    registry_.pending_requests_[draft_.request_id] = pending_;
    request_sequence_ = registry_.num_requests_++;
  }
  return absl::OkStatus();
}

void ModelImport::Store() {
  std::vector<std::shared_ptr<SessionJournal>> replaced;
  for (const Part& part : parts_) {
    if (part.action == ImportAction::kReplaced) replaced.push_back(part.session->journal());
  }
  auto self = shared_from_this();
  if (!replaced.empty()) {
    // The request is remembered for the server, not by the sessions.
    return JournalGroup::Change(
        std::move(replaced), /*request_id=*/"", fingerprint_,
        [self](const SessionJournal& journal, const SessionContent& newest) { return self->Replace(journal, newest); },
        [self](const absl::StatusOr<std::vector<Answer>>& made) { self->Finish(made.status()); },
        [self](const std::vector<Answer>& answers, StoreWrite& write) { self->Complete(answers, write); });
  }
  StoreWrite write;
  Complete({}, write);
  if (write.sessions.empty()) return Finish(absl::OkStatus());
  registry_.surroundings_.store->Write(std::move(write), [self](const absl::Status& stored) { self->Finish(stored); });
}

absl::StatusOr<SessionChange> ModelImport::Replace(const SessionJournal& journal, const SessionContent& newest) const {
  const auto layer = std::lower_bound(draft_.layers.begin(), draft_.layers.end(), journal.identity().name,
                                      [](const ImportedLayer& a, const std::string& name) { return a.name < name; });
  return StateChange([this, &layer = *layer](const SessionJournal&, const SessionContent&, SessionState& state,
                                             Observations& observations) -> absl::Status {
    const SessionConfig& config = state.config;
    SessionDraft draft = DraftOf(draft_, layer);
    if (draft.config.num_features != config.num_features) {
      return FieldError("data", absl::StrCat("session \"", layer.name, "\" has ", config.num_features,
                                             " channels and its layer in the file ", draft.config.num_features,
                                             ": delete the session first"));
    }
    if (!config.track_running_stats) return NotTracked("data", layer.name, "leave track_running_stats out of config");
    if (!config.affine && draft.config.affine) return NotAffine(layer.name);
    if (draft_.check_existing) {
      if (absl::Status status = draft_.check_existing(layer.name, config); !status.ok()) return status;
    }
    auto statistics = StatisticsFor(layer, config);
    if (!statistics.ok()) return statistics.status();
    // A layer without weight or bias has 1 or 0 there.
    const SessionState first = FirstState(std::move(draft));
    state.parameters = first.parameters;
    state.running = std::make_shared<const NormalizationStatistics>(*std::move(statistics));
    state.num_batches_tracked = first.num_batches_tracked;
    state.statistics_set_at = SetElsewhere(*state.running, first.num_batches_tracked);
    state.mode = draft_.mode;
    if (state.mode == Mode::kShadow) observations.shadow = nullptr;
    state.lineage += 1;
    return absl::OkStatus();
  })(journal, newest);
}

void ModelImport::Complete(const std::vector<Answer>& replaced, StoreWrite& write) {
  auto next_replaced = replaced.begin();
  answer_.parts.clear();
  for (const Part& part : parts_) {
    int64_t generation = 0;
    if (part.action == ImportAction::kReplaced) {
      generation = std::get<SessionDescription>(*next_replaced++).generation;
    } else if (part.action == ImportAction::kSkipped) {
      generation = part.session->Snapshot()->generation;
    } else if (part.session->is_stored()) {
      write.sessions.push_back(part.session->FirstWrite());
      write.durability = std::max(write.durability, draft_.config.durability);
    }
    answer_.parts.push_back(PartOf(part.session->uid(), generation, part.action));
  }
  if (draft_.request_id.empty() || write.sessions.empty()) return;
  write.server_request = WriteRequest(SessionRegistry::ServerRing(), request_sequence_, draft_.request_id,
                                      {fingerprint_, Remembered(answer_)});
}

void ModelImport::Finish(const absl::Status& status) {
  {
    absl::MutexLock lock(&registry_.mutex_);
    registry_.pending_requests_.erase(draft_.request_id);
    for (const Part& part : parts_) {
      if (part.action != ImportAction::kCreated) continue;
      const auto entry = registry_.sessions_.find(part.session->name());
      entry->second.pending = nullptr;
      if (status.ok()) {
        registry_.changes().Note(part.session->name());
        continue;
      }
      registry_.surroundings_.state_budget->Give(SessionSizeBytes(part.first->config.num_features));
      registry_.sessions_.erase(entry);
    }
    if (status.ok()) registry_.memory_.Remember(draft_.request_id, fingerprint_, Remembered(answer_));
  }
  if (status.ok()) {
    std::move(answered_)(Describe(answer_));
  } else {
    std::move(answered_)(status);
  }
  for (auto& waiter : pending_->waiters) std::move(waiter)();
}

ImportAnswer ModelImport::Remembered(const ImportAnswer& answer) {
  return answer.parts.size() <= kMaxRememberedParts ? answer : ImportAnswer{};
}

std::vector<ImportedSession> ModelImport::Describe(const ImportAnswer& answer) const {
  std::vector<ImportedSession> sessions;
  for (size_t i = 0; i < answer.parts.size(); ++i) {
    const ImportedLayer& layer = draft_.layers[i];
    const ImportAnswer::Part& part = answer.parts[i];
    sessions.push_back({.name = layer.name,
                        .uid = std::string(part.uid.data(), part.uid.size()),
                        .generation = part.generation,
                        .num_features = static_cast<int64_t>(layer.statistics.mean.size()),
                        .num_batches_tracked = layer.num_batches_tracked.value_or(0),
                        .action = part.action});
  }
  return sessions;
}

void ModelImport::AnswerAgain(absl::StatusOr<Answer> known) {
  auto answer = AnswerAs<ImportAnswer>(std::move(known), draft_.request_id);
  if (!answer.ok()) return std::move(answered_)(answer.status());
  if (answer->parts.size() == draft_.layers.size()) return std::move(answered_)(Describe(*answer));
  // It was too long to be remembered.
  std::vector<ImportedSession> sessions;
  for (const ImportedLayer& layer : draft_.layers) {
    const auto session = registry_.Find(layer.name);
    if (!session.ok()) continue;  // deleted since
    sessions.push_back({.name = layer.name,
                        .uid = (*session)->uid(),
                        .generation = (*session)->Snapshot()->generation,
                        .num_features = static_cast<int64_t>(layer.statistics.mean.size()),
                        .num_batches_tracked = layer.num_batches_tracked.value_or(0),
                        .action = ImportAction::kSkipped});
  }
  std::move(answered_)(std::move(sessions));
}

}  // namespace normserve
