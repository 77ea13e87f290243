#include "server/session/session_journal.h"

#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "server/session/session_errors.h"
#include "server/session/stored_collections.h"
#include "server/session/stored_history.h"
#include "server/session/stored_requests.h"
#include "server/session/stored_state.h"
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

// A damaged one is lost by itself: the session is whole without it.
Snapshots ReadSnapshots(const StoredPart& session, const StoredSession& stored, const SessionState& newest) {
  const SessionConfig& config = newest.config;
  Snapshots snapshots;
  // Vectors of one version are one thing, as they were when they were taken.
  std::map<int64_t, std::shared_ptr<const NormalizationStatistics>> running = {
      {newest.running_version, newest.running}};
  for (const StoredSnapshot& row : stored.snapshots) {
    const StoredPart part = session.OfSnapshot(row.name);
    auto snapshot = ReadSnapshot(part, stored.head.uid, row);
    if (snapshot.ok() && snapshot->state->config != config) snapshot = StoredDataLost(part, "it is another session's");
    if (!snapshot.ok()) {
      snapshot = StateSnapshot{.state = std::make_shared<const SessionState>(SessionState{.config = config}),
                               .lost = snapshot.status()};
    } else if (const auto& own = snapshot->state->running; own != nullptr) {
      const auto& first = running.try_emplace(snapshot->state->running_version, own).first->second;
      if (first != own && first != nullptr && first->mean == own->mean && first->variance == own->variance) {
        auto state = std::make_shared<SessionState>(*snapshot->state);
        state->running = first;
        snapshot->state = std::move(state);
      }
    }
    snapshots.emplace(row.name, *std::move(snapshot));
  }
  return snapshots;
}

// A point that is damaged, missing or not the session's is left out.
void ReadHistory(const StoredPart& session, const StoredSession& stored, int64_t num_updates, size_t num_features,
                 Observations& observations) {
  if (num_updates == 0 && stored.history.empty()) return;
  auto history = std::make_shared<History>(History{.num_updates = num_updates});
  for (const StoredPoint& row : stored.history) {
    auto point = ReadPoint(session.Of("history"), stored.head.uid, row);
    if (!point.ok() || row.slot < 0 || static_cast<size_t>(row.slot) >= kHistorySlots) continue;
    const auto slot = static_cast<size_t>(row.slot);
    const auto& batch = point->batch;
    if (batch != nullptr && (batch->mean.size() != num_features || batch->m2.size() != num_features)) continue;
    if (!Belongs(*point, slot, num_updates)) continue;
    history->slots[slot] = std::make_shared<const HistoryPoint>(*std::move(point));
  }
  if (const auto& newest = history->slots[RecentSlot(num_updates)];
      newest != nullptr && newest->update == num_updates) {
    observations.last_batch = newest->batch;
  }
  observations.history = std::move(history);
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

// Whether the ring holds the last of `num_remembered` requests and nothing else. `rows` by sequence.
bool IsWhole(const std::vector<StoredRequest>& rows, int64_t num_remembered) {
  const int64_t first = std::max<int64_t>(0, num_remembered - kRememberedRequests);
  if (static_cast<int64_t>(rows.size()) != num_remembered - first) return false;
  for (size_t i = 0; i < rows.size(); ++i) {
    if (rows[i].sequence != first + static_cast<int64_t>(i)) return false;
  }
  return true;
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
  const StoredPart session{.location = surroundings.store->location(), .session = std::string(name)};
  auto head = ReadHead(session, stored.head);
  if (!head.ok()) return head.status();
  const auto length = static_cast<size_t>(head->state.config.num_features);
  StoredVectors vectors;
  for (const StoredVector& vector : stored.current) {
    if (absl::Status status = ReadVector(session, vector, length, vectors); !status.ok()) return status;
  }
  Observations observations;
  absl::Status status = FillIn(session, vectors, *head, head->state, observations);
  if (!status.ok()) return status;
  ReadHistory(session, stored, head->num_updates, length, observations);
  auto snapshots = std::make_shared<const Snapshots>(ReadSnapshots(session, stored, head->state));
  auto collections = ReadCollections(session, stored, head->num_collection_rows, head->state.config.num_features);
  const std::shared_ptr<SessionJournal> journal(
      new SessionJournal({.name = stored.head.name, .uid = stored.head.uid, .create_time = head->create_time},
                         {.state = std::make_shared<const SessionState>(std::move(head->state)),
                          .observations = std::move(observations),
                          .snapshots = std::move(snapshots),
                          .collections = std::move(collections)},
                         std::move(surroundings), stored.head.epoch, stored.head.sequence));

  absl::MutexLock lock(&journal->mutex_);
  journal->is_recollected_ = false;
  journal->num_remembered_ = head->num_remembered;
  return journal;
}

absl::Status SessionJournal::Recollect() {
  if (is_recollected_) return absl::OkStatus();
  const auto stored = surroundings_.store->LoadMemory(identity_.uid);
  if (!stored.ok()) return stored.status();
  const StoredPart session{.location = surroundings_.store->location(), .session = identity_.name};
  const StoredPart part = session.Of("remembered request");
  if (num_remembered_ != kNotRecorded && !IsWhole(stored->requests, num_remembered_)) {
    return StoredDataLost(part, absl::StrCat("of the last ", kRememberedRequests, " of ", num_remembered_,
                                             ", some are missing or others are there"));
  }
  const SessionState& state = *Visible().state;
  StoredVectors vectors;
  for (const StoredVector& vector : stored->kept) {
    const auto length = static_cast<size_t>(state.config.num_features);
    absl::Status status = ReadVector(session, vector, length, vectors);
    if (!status.ok()) return status;
  }
  vectors.parameters[state.parameters_version] = state.parameters;
  if (state.running != nullptr) vectors.running[state.running_version] = state.running;
  std::vector<std::pair<std::string, RememberedRequest>> requests;
  absl::Status lost;
  ReadRequests(
      part, RingOf(identity_), stored->requests,
      [&](const StoredRequest& row, RememberedRequest request) {
        requests.emplace_back(row.request_id, std::move(request));
      },
      [&](absl::Status damage) { lost.Update(damage); });
  if (!lost.ok()) return lost;

  is_recollected_ = true;
  for (auto& [request_id, request] : requests) {
    if (auto* forward = std::get_if<ForwardAnswer>(&request.answer)) FillIn(vectors, *forward);
    memory_.Remember(request_id, request.fingerprint, std::move(request.answer));
  }
  num_remembered_ = stored->requests.empty() ? 0 : stored->requests.back().sequence + 1;
  memory_.TakeReleased();  // the rule below finds them too
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
  const SessionContent content = Visible();
  SessionWrite write{.kind = SessionWrite::Kind::kCreate,
                     .uid = identity_.uid,
                     .name = identity_.name,
                     .epoch = epoch_,
                     .sequence = 0,
                     .head = HeadOf(content, /*num_remembered=*/0)};
  write.current.push_back(
      {VectorKind::kParameters, content.state->parameters_version, WriteParameters(*content.state->parameters)});
  if (content.state->running != nullptr) {
    write.current.push_back(
        {VectorKind::kRunning, content.state->running_version, WriteStatistics(*content.state->running)});
  }
  return write;
}

std::string SessionJournal::HeadOf(const SessionContent& content, int64_t num_remembered) const {
  const Observations& observations = content.observations;
  const int64_t num_updates = observations.history == nullptr ? 0 : observations.history->num_updates;
  return WriteHead({.state = *content.state,
                    .create_time = identity_.create_time,
                    .name = identity_.name,
                    .uid = identity_.uid,
                    .num_remembered = num_remembered,
                    .shadow_version = observations.shadow == nullptr ? kNoVersion : observations.shadow_version,
                    .observed_version = observations.observed == nullptr ? kNoVersion : observations.observed_version,
                    .num_updates = num_updates,
                    .num_collection_rows = NumCollectionRows(content.collections),
                    .observed_before_version =
                        observations.observed_before == nullptr ? kNoVersion : observations.observed_before_version});
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
  const SessionContent& after = pending.content;
  SessionWrite write{.uid = identity_.uid, .epoch = epoch_, .sequence = sequence};
  if (after.is_deleted) {
    write.kind = SessionWrite::Kind::kDelete;
    return write;
  }
  write.head = HeadOf(after, num_remembered_ + (pending.request_id.empty() ? 0 : 1));
  if (after.state->parameters != before.state->parameters) {
    write.current.push_back({VectorKind::kParameters, sequence, WriteParameters(*after.state->parameters)});
  }
  if (after.state->running != before.state->running) {
    write.current.push_back({VectorKind::kRunning, sequence, WriteStatistics(*after.state->running)});
  }
  if (const auto& shadow = after.observations.shadow; shadow != before.observations.shadow) {
    write.current.push_back({VectorKind::kShadow, sequence, shadow == nullptr ? "" : WriteMoments(*shadow)});
  }
  if (after.observations.history != before.observations.history) {
    AddPoints(before.observations.history.get(), *after.observations.history, write);
  }
  if (const Observations& seen = after.observations; seen.observed != before.observations.observed) {
    static const std::vector<ObservedPart> kNoParts;
    write.current.push_back(
        {VectorKind::kObserved, sequence,
         seen.observed == nullptr
             ? ""
             : WriteObserved(*seen.observed, seen.observed_parts == nullptr ? kNoParts : *seen.observed_parts)});
  }
  if (const auto& earlier = after.observations.observed_before; earlier != before.observations.observed_before) {
    write.current.push_back({VectorKind::kObservedBefore, sequence, earlier == nullptr ? "" : WriteMoments(*earlier)});
  }
  if (after.snapshots != before.snapshots) {
    for (const auto& [name, snapshot] : *after.snapshots) {
      if (!before.snapshots->contains(name)) write.snapshot = WriteSnapshot(identity_.uid, name, snapshot);
    }
    for (const auto& [name, snapshot] : *before.snapshots) {
      if (!after.snapshots->contains(name)) write.deleted_snapshot = name;
    }
  }
  if (after.collections != before.collections) {
    WriteCollections(identity_.uid, before.collections, *after.collections, write);
  }
  if (!pending.request_id.empty()) {
    write.request =
        WriteRequest(RingOf(identity_), num_remembered_, pending.request_id, {pending.fingerprint, pending.answer});
  }
  DropVectors(write);
  KeepVectors(before, pending, write);
  return write;
}

void SessionJournal::AddPoints(const History* before, const History& after, SessionWrite& write) const {
  for (size_t slot = 0; slot < kHistorySlots; ++slot) {
    const auto& point = after.slots[slot];
    if (point == nullptr || (before != nullptr && point == before->slots[slot])) continue;
    write.history.push_back(WritePoint(identity_.uid, slot, *point));
  }
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
