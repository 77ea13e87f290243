#include "server/session/session_journal.h"

#include <algorithm>
#include <variant>

#include "server/session/session_errors.h"
#include "server/session/session_rows.h"
#include "server/session/stored_requests.h"
#include "server/session/stored_vectors.h"

namespace normserve {
namespace {

// The contract promises the last 1,024 changes.
constexpr int64_t kRememberedRequests = 1024;

// Enough for all of them while Forwards use one set of parameters, or normalise with running statistics of up to 150
// channels; a wide session keeps at least the last eight whatever they used, and still two when others keep too much.
VectorLimits LimitsOf(int64_t num_features, std::shared_ptr<VectorBudget> budget) {
  // What one set of parameters and running statistics takes.
  const int64_t state_bytes = 1024 + num_features * static_cast<int64_t>(2 * sizeof(float) + 2 * sizeof(double));
  return VectorLimits{
      .max_bytes = (int64_t{4} << 20) + 8 * state_bytes, .scarce_bytes = 2 * state_bytes, .budget = std::move(budget)};
}

// `after`, whose new snapshots have a version of their own where their running statistics are those of no state: a
// request that was normalised with them is remembered with it.
std::shared_ptr<const Snapshots> WithVersions(std::shared_ptr<const Snapshots> after, const SessionContent& before,
                                              int64_t sequence) {
  std::shared_ptr<Snapshots> changed;
  for (const auto& [name, snapshot] : *after) {
    if (before.snapshots->contains(name) || snapshot.state->running == before.state->running) continue;
    auto state = std::make_shared<SessionState>(*snapshot.state);
    state->running_version = sequence;
    if (changed == nullptr) changed = std::make_shared<Snapshots>(*after);
    changed->find(name)->second.state = std::move(state);
  }
  return changed == nullptr ? std::move(after) : std::move(changed);
}

RequestRing RingOf(const SessionIdentity& identity) { return {.uid = identity.uid, .num_slots = kRememberedRequests}; }

const ForwardAnswer* ForwardOf(const Answer& answer) { return std::get_if<ForwardAnswer>(&answer); }

}  // namespace

SessionJournal::SessionJournal(SessionIdentity identity, SessionContent first, SessionSurroundings surroundings,
                               int64_t epoch, int64_t sequence)
    : identity_(std::move(identity)),
      surroundings_(std::move(surroundings)),
      is_stored_(surroundings_.store != nullptr && first.state->config.durability != Durability::kNone),
      epoch_(epoch),
      memory_(kRememberedRequests, LimitsOf(first.state->config.num_features, surroundings_.vector_budget)),
      sequence_(sequence),
      visible_(std::move(first)) {}

std::shared_ptr<SessionJournal> SessionJournal::New(SessionIdentity identity, SessionContent first,
                                                    SessionSurroundings surroundings) {
  return std::shared_ptr<SessionJournal>(
      new SessionJournal(std::move(identity), std::move(first), std::move(surroundings), /*epoch=*/1, /*sequence=*/0));
}

absl::StatusOr<std::shared_ptr<SessionJournal>> SessionJournal::Restore(absl::string_view name,
                                                                        const StoredSession& stored,
                                                                        SessionSurroundings surroundings) {
  auto restored = ReadSession({.location = surroundings.store->location(), .session = std::string(name)}, stored);
  if (!restored.ok()) return restored.status();
  const std::shared_ptr<SessionJournal> journal(
      new SessionJournal(std::move(restored->identity), std::move(restored->content), std::move(surroundings),
                         stored.head.epoch, stored.head.sequence));

  absl::MutexLock lock(&journal->mutex_);
  journal->is_recollected_ = false;
  journal->num_remembered_ = restored->num_remembered;
  return journal;
}

absl::Status SessionJournal::Recollect() {
  if (is_recollected_) return absl::OkStatus();
  const auto stored = surroundings_.store->LoadMemory(identity_.uid);
  if (!stored.ok()) return stored.status();
  auto restored = ReadMemory({.location = surroundings_.store->location(), .session = identity_.name},
                             RingOf(identity_), *stored, *Visible().state, num_remembered_);
  if (!restored.ok()) return restored.status();

  is_recollected_ = true;
  for (auto& [request_id, request] : restored->requests) {
    memory_.Remember(request_id, request.fingerprint, std::move(request.answer));
  }
  num_remembered_ = restored->num_remembered;
  memory_.TakeReleased();  // the rule below finds them too
  const StoredVectors& vectors = restored->vectors;
  for (const StoredVector& vector : stored->kept) {
    kept_.emplace(vector.kind, vector.version);
    const void* const of_version = vector.kind == VectorKind::kParameters
                                       ? static_cast<const void*>(OfVersion(vectors.parameters, vector.version).get())
                                       : static_cast<const void*>(OfVersion(vectors.running, vector.version).get());
    if (!memory_.Keeps(of_version)) released_.emplace_back(vector.kind, vector.version);
  }
  return absl::OkStatus();
}

SessionWrite SessionJournal::FirstWrite() const {
  SessionWrite write{.kind = SessionWrite::Kind::kCreate,
                     .uid = identity_.uid,
                     .name = identity_.name,
                     .epoch = epoch_,
                     .sequence = 0};
  WriteNewSession(identity_, Visible(), write);
  return write;
}

SessionContent SessionJournal::Visible() const {
  absl::MutexLock lock(&content_mutex_);
  return visible_;
}

std::pair<SessionContent, bool> SessionJournal::Admit(const std::string& request_id) {
  if (request_id.empty()) return {Visible(), false};
  absl::MutexLock lock(&mutex_);
  const bool may_be_remembered = !Recollect().ok() || memory_.Contains(request_id);
  return {Visible(), may_be_remembered};
}

absl::StatusOr<std::optional<Answer>> SessionJournal::Recall(const std::string& request_id,
                                                             const Fingerprint& fingerprint) {
  absl::MutexLock lock(&mutex_);
  if (absl::Status status = Recollect(); !status.ok()) return status;
  const auto found = memory_.Find(request_id, fingerprint);
  if (!found.ok()) return found.status();
  if (*found == nullptr) return std::nullopt;
  return **found;
}

SessionJournal::Pending* SessionJournal::FindPending(const std::string& request_id) {
  for (Pending& pending : pending_) {
    if (pending.request_id == request_id) return &pending;
  }
  return nullptr;
}

std::optional<absl::StatusOr<Answer>> SessionJournal::Known(const ChangeGuard& guard, const Fingerprint& fingerprint,
                                                            Pending** depends_on) {
  if (!guard.request_id.empty()) {
    const auto found = memory_.Find(guard.request_id, fingerprint);
    if (!found.ok()) return found.status();
    if (*found != nullptr) return **found;
    if (Pending* pending = FindPending(guard.request_id); pending != nullptr) {
      *depends_on = pending;
      if (pending->fingerprint != fingerprint) return RequestIdReused(guard.request_id);
      return pending->answer;
    }
  }
  const SessionContent newest = Newest();
  if (newest.is_deleted) return std::nullopt;  // which the change has its own word for
  absl::Status status = CheckExpectations(guard, identity_.name, identity_.uid, newest.state->generation);
  if (status.ok()) return std::nullopt;
  if (!pending_.empty()) *depends_on = &pending_.back();
  return status;
}

void SessionJournal::Change(ChangeGuard guard, Fingerprint fingerprint, Make make, Made made) {
  Callbacks callbacks;
  {
    absl::MutexLock lock(&mutex_);
    Pending* depends_on = nullptr;
    const absl::Status recollected = Recollect();
    std::optional<absl::StatusOr<Answer>> known;
    if (!recollected.ok() && !guard.request_id.empty()) {
      known = recollected;
    } else {
      known = Known(guard, fingerprint, &depends_on);
    }
    if (!known.has_value()) {
      absl::StatusOr<SessionChange> change = make(Newest());
      // What cannot be read any more can still be deleted.
      if (change.ok() && !recollected.ok() && !change->deletes) {
        surroundings_.state_budget->Give(change->taken_bytes);
        change = recollected;
      }
      if (change.ok()) {
        StoreWrite write = Append(guard, fingerprint, *std::move(change), made);
        const int64_t chain = chain_, sequence = sequence_;
        if (is_stored_) {
          surroundings_.store->Write(std::move(write),
                                     [self = shared_from_this(), chain, sequence](const absl::Status& status) {
                                       Callbacks settled;
                                       {
                                         absl::MutexLock settle_lock(&self->mutex_);
                                         self->Settle(chain, sequence, status, settled);
                                       }
                                       for (auto& callback : settled) std::move(callback)();
                                     });
        } else {
          Settle(chain, sequence, absl::OkStatus(), callbacks);
        }
      } else {
        known = change.status();
        if (!pending_.empty()) depends_on = &pending_.back();
      }
    }
    if (known.has_value() && depends_on == nullptr) {
      callbacks.push_back(
          [made = std::move(made), known = *std::move(known)]() mutable { std::move(made)(std::move(known)); });
    } else if (known.has_value()) {
      depends_on->waiters.push_back([self = shared_from_this(), guard = std::move(guard), fingerprint,
                                     make = std::move(make), made = std::move(made),
                                     known = *std::move(known)](bool is_visible) mutable {
        if (is_visible) return std::move(made)(std::move(known));
        self->Change(std::move(guard), fingerprint, std::move(make), std::move(made));
      });
    }
  }
  for (auto& callback : callbacks) std::move(callback)();
}

StoreWrite SessionJournal::Append(const ChangeGuard& guard, const Fingerprint& fingerprint, SessionChange change,
                                  Made& made) {
  const SessionContent before = Newest();
  const int64_t sequence = sequence_ + 1;
  Pending pending{.chain = chain_,
                  .sequence = sequence,
                  .content = before,
                  .request_id = guard.request_id,
                  .fingerprint = fingerprint,
                  .answer = std::move(change.answer),
                  .taken_bytes = change.taken_bytes,
                  .freed_bytes = change.freed_bytes};
  if (change.state != nullptr) {
    if (change.state->parameters != before.state->parameters) change.state->parameters_version = sequence;
    if (change.state->running != before.state->running) change.state->running_version = sequence;
    pending.content.state = std::move(change.state);
  }
  if (change.observations.has_value()) {
    if (change.observations->shadow != before.observations.shadow) change.observations->shadow_version = sequence;
    if (change.observations->observed != before.observations.observed) change.observations->observed_version = sequence;
    if (change.observations->observed_before != before.observations.observed_before) {
      change.observations->observed_before_version = sequence;
    }
    pending.content.observations = *std::move(change.observations);
  }
  if (change.snapshots != nullptr) {
    pending.content.snapshots = WithVersions(std::move(change.snapshots), before, sequence);
  }
  if (change.collections != nullptr) pending.content.collections = std::move(change.collections);
  pending.content.is_deleted = change.deletes;
  StoreWrite write{.server_request = std::move(change.server_request),
                   .durability = pending.content.state->config.durability};
  if (is_stored_) write.sessions.push_back(WriteOf(before, pending, sequence));
  pending.made = std::move(made);
  pending_.push_back(std::move(pending));
  sequence_ = sequence;
  if (!guard.request_id.empty()) ++num_remembered_;
  return write;
}

SessionWrite SessionJournal::WriteOf(const SessionContent& before, Pending& pending, int64_t sequence) {
  SessionWrite write{.uid = identity_.uid, .epoch = epoch_, .sequence = sequence};
  if (pending.content.is_deleted) {
    write.kind = SessionWrite::Kind::kDelete;
    return write;
  }
  const bool is_remembered = !pending.request_id.empty();
  WriteChange(identity_, before, pending.content, num_remembered_ + (is_remembered ? 1 : 0), write);
  if (is_remembered) {
    write.request =
        WriteRequest(RingOf(identity_), num_remembered_, pending.request_id, {pending.fingerprint, pending.answer});
  }
  DropVectors(write);
  KeepVectors(before, pending, write);
  return write;
}

void SessionJournal::KeepVectors(const SessionContent& before, Pending& pending, SessionWrite& write) {
  const SessionState& after = *pending.content.state;
  const auto keep = [&](VectorKind kind, int64_t version, std::string data) {
    pending.kept.emplace_back(kind, version);
    write.kept.push_back({kind, version, std::move(data)});
  };
  const auto keep_parameters = [&](const std::shared_ptr<const AffineParameters>& vectors, int64_t version)
                                   ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
                                     if (vectors == nullptr || vectors == after.parameters) return;
                                     if (kept_.emplace(VectorKind::kParameters, version).second) {
                                       keep(VectorKind::kParameters, version, WriteParameters(*vectors));
                                     }
                                   };
  const auto keep_running = [&](const std::shared_ptr<const NormalizationStatistics>& vectors, int64_t version)
                                ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
                                  if (vectors == nullptr || vectors == after.running) return;
                                  if (kept_.emplace(VectorKind::kRunning, version).second) {
                                    keep(VectorKind::kRunning, version, WriteStatistics(*vectors));
                                  }
                                };
  // What this request was computed with, and what this change takes from under those before.
  if (const ForwardAnswer* forward = ForwardOf(pending.answer); forward != nullptr && !pending.request_id.empty()) {
    keep_parameters(forward->parameters, forward->parameters_version);
    keep_running(forward->running, forward->running_version);
  }
  if (IsUsed(before.state->parameters.get())) {
    keep_parameters(before.state->parameters, before.state->parameters_version);
  }
  if (IsUsed(before.state->running.get())) keep_running(before.state->running, before.state->running_version);
}

void SessionJournal::DropVectors(SessionWrite& write) {
  for (const auto& released : memory_.TakeReleased()) released_.push_back(released);
  for (const auto& [kind, version] : std::exchange(released_, {})) {
    // One that a pending request uses is released again later.
    if (IsUsedByPending(kind, version) || kept_.erase({kind, version}) == 0) continue;
    write.dropped.emplace_back(kind, version);
  }
}

bool SessionJournal::IsUsed(const void* vectors) const {
  if (vectors == nullptr) return false;
  if (memory_.Keeps(vectors)) return true;
  for (const Pending& pending : pending_) {
    const ForwardAnswer* forward = pending.request_id.empty() ? nullptr : ForwardOf(pending.answer);
    if (forward == nullptr) continue;
    if (forward->parameters.get() == vectors || forward->running.get() == vectors) return true;
  }
  return false;
}

bool SessionJournal::IsUsedByPending(VectorKind kind, int64_t version) const {
  for (const Pending& pending : pending_) {
    const ForwardAnswer* forward = pending.request_id.empty() ? nullptr : ForwardOf(pending.answer);
    if (forward == nullptr) continue;
    if (kind == VectorKind::kParameters && forward->parameters_version == version) return true;
    if (kind == VectorKind::kRunning && forward->running != nullptr && forward->running_version == version) return true;
  }
  return false;
}

void SessionJournal::Settle(int64_t chain, int64_t sequence, const absl::Status& status, Callbacks& callbacks) {
  const auto settled = std::find_if(pending_.begin(), pending_.end(), [&](const Pending& pending) {
    return pending.chain == chain && pending.sequence == sequence;
  });
  if (settled == pending_.end()) return;  // dropped with one before it
  if (!status.ok()) return DropFrom(settled, status, callbacks);
  settled->is_settled = true;
  while (!pending_.empty() && pending_.front().is_settled) ShowFirst(callbacks);
}

void SessionJournal::ShowFirst(Callbacks& callbacks) {
  Pending first = std::move(pending_.front());
  pending_.pop_front();
  memory_.Remember(first.request_id, first.fingerprint, first.answer);
  surroundings_.state_budget->Give(first.freed_bytes);
  const bool is_deleted = first.content.is_deleted;
  {
    absl::MutexLock lock(&content_mutex_);
    std::swap(visible_, first.content);
  }
  // Of a deletion the registry tells, once it is not found any more.
  if (!is_deleted) surroundings_.changes->Note(identity_.name);
  callbacks.push_back([first = std::move(first)]() mutable {
    std::move(first.made)(std::move(first.answer));
    for (Waiter& waiter : first.waiters) std::move(waiter)(/*is_visible=*/true);
  });
}

void SessionJournal::DropFrom(std::deque<Pending>::iterator first, const absl::Status& status, Callbacks& callbacks) {
  ++chain_;
  sequence_ -= pending_.end() - first;
  for (auto dropped = first; dropped != pending_.end(); ++dropped) {
    if (!dropped->request_id.empty()) --num_remembered_;
    for (const auto& kept : dropped->kept) kept_.erase(kept);
    surroundings_.state_budget->Give(dropped->taken_bytes);
    callbacks.push_back([dropped = std::move(*dropped), status]() mutable {
      std::move(dropped.made)(status);
      for (Waiter& waiter : dropped.waiters) std::move(waiter)(/*is_visible=*/false);
    });
  }
  pending_.erase(first, pending_.end());
}

}  // namespace normserve
