#include "server/session/session_registry.h"

#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "kernels/error_reason.h"
#include "server/session/field_error.h"
#include "server/session/page_token.h"
#include "server/session/session_errors.h"
#include "server/session/session_name.h"
#include "server/session/stored_requests.h"
#include "server/session/stored_state.h"

namespace normserve {
namespace {

constexpr int64_t kDefaultPageSize = 100;
constexpr int64_t kMaxPageSize = 1000;
// More than the 1,024 promised, as all clients share them.
constexpr int64_t kRememberedRequests = 16'384;

bool HasLabels(const SessionConfig& config, const Labels& labels) {
  for (const auto& [key, value] : labels) {
    const auto found = config.labels.find(key);
    if (found == config.labels.end() || found->second != value) return false;
  }
  return true;
}

}  // namespace

RequestRing SessionRegistry::ServerRing() { return {.num_slots = kRememberedRequests}; }

int64_t SessionRegistry::ChargedBytes(const SessionDescription& session, const StoredHead& stored) {
  if (session.config.num_features < 1) return 0;  // its record is damaged
  return SessionSizeBytes(session.config.num_features) +
         StateSizeBytes(session.config.num_features) * session.num_snapshots + stored.collection_bytes;
}

SessionRegistry::SessionRegistry(SessionLimits limits, StateStore* store)
    : limits_(limits),
      surroundings_{.state_budget = std::make_shared<StateBudget>(limits.max_state_bytes), .store = store},
      memory_(kRememberedRequests, VectorLimits{}) {}

absl::StatusOr<LoadReport> SessionRegistry::Load() {
  LoadReport report;
  if (surroundings_.store == nullptr) return report;
  auto heads = surroundings_.store->ListSessions();
  if (!heads.ok()) return heads.status();
  auto requests = surroundings_.store->ListServerRequests();
  if (!requests.ok()) return requests.status();

  absl::MutexLock lock(&mutex_);
  std::vector<const StoredHead*> damaged;
  for (const StoredHead& stored : *heads) {
    if (!Take(stored)) damaged.push_back(&stored);
  }
  // After all others, whose names they may have come by.
  for (const StoredHead* stored : damaged) TakeDamaged(*stored, report);
  ReadRequests(
      {.location = surroundings_.store->location()}, ServerRing(), *requests,
      [this](const StoredRequest& row, RememberedRequest request) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        memory_.Remember(row.request_id, request.fingerprint, std::move(request.answer));
        num_requests_ = row.sequence + 1;
      },
      [&report](const absl::Status&) { ++report.num_lost_requests; });
  report.num_sessions = static_cast<int64_t>(sessions_.size());
  return report;
}

bool SessionRegistry::Take(const StoredHead& stored) {
  const auto head = ReadHead({.location = surroundings_.store->location(), .session = stored.name}, stored);
  if (!head.ok()) return false;
  Entry entry{.stored = std::make_shared<const StoredHead>(stored),
              .description = {.name = stored.name,
                              .uid = stored.uid,
                              .config = head->state.config,
                              .mode = head->state.mode,
                              .generation = head->state.generation,
                              .num_batches_tracked = head->state.num_batches_tracked,
                              .create_time = head->create_time,
                              .update_time = head->state.update_time,
                              .num_snapshots = stored.num_snapshots}};
  surroundings_.state_budget->Take(ChargedBytes(entry.description, *entry.stored));
  sessions_.emplace(stored.name, std::move(entry));
  return true;
}

void SessionRegistry::TakeDamaged(const StoredHead& stored, LoadReport& report) {
  // By the name that clients know, where the row has another.
  std::string name = NameInHead(stored.record);
  if (name.empty() || sessions_.contains(name)) name = stored.name;
  report.damaged.push_back(absl::CHexEscape(name));
  Entry entry{.stored = std::make_shared<const StoredHead>(stored), .is_damaged = true};
  if (IsSessionUid(stored.uid)) entry.description.uid = stored.uid;
  sessions_.emplace(std::move(name), std::move(entry));
}

SessionRegistry::Known SessionRegistry::Lookup(const std::string& request_id, const Fingerprint& fingerprint) const {
  if (request_id.empty()) return {};
  const auto found = memory_.Find(request_id, fingerprint);
  if (!found.ok()) return {.answer = found.status()};
  if (*found != nullptr) return {.answer = **found};
  const auto pending = pending_requests_.find(request_id);
  return {.pending = pending == pending_requests_.end() ? nullptr : pending->second};
}

void SessionRegistry::Create(SessionDraft draft, Answered<SessionDescription> answered) {
  absl::Status status = CheckDraft(draft, limits_.max_num_features);
  draft.config.durability = draft.durability.value_or(default_durability());
  if (status.ok() && draft.config.durability != Durability::kNone && surroundings_.store == nullptr) {
    status = DurabilityUnavailable(draft.config.durability == Durability::kCommit ? "COMMIT" : "FLUSH");
  }
  if (!status.ok()) return std::move(answered)(status);
  Opening opening{.request_id = draft.request_id,
                  .fingerprint = FingerprintOf(draft),
                  .name_field = "name",
                  .name = draft.name.empty() ? MakeSessionName() : draft.name};
  Known known;
  {
    // Before the vectors are made. Looked at again when they are, as others may come in between.
    absl::ReaderMutexLock lock(&mutex_);
    known = Lookup(opening.request_id, opening.fingerprint);
    if (!known.answer.has_value() && known.pending == nullptr) {
      status = CheckRoom(opening.name_field, opening.name, SessionSizeBytes(draft.config.num_features));
    }
  }
  if (known.answer.has_value()) {
    return std::move(answered)(AnswerAs<SessionDescription>(*std::move(known.answer), opening.request_id));
  }
  if (!status.ok()) return std::move(answered)(status);
  opening.first = std::make_shared<const SessionState>(FirstState(std::move(draft)));
  Open(std::move(opening), std::move(answered));
}

void SessionRegistry::Open(Opening opening, Answered<SessionDescription> answered) {
  absl::Status status;
  std::shared_ptr<Session> session;
  StoreWrite write;
  {
    absl::MutexLock lock(&mutex_);
    Known known = Lookup(opening.request_id, opening.fingerprint);
    if (known.answer.has_value()) {
      auto answer = AnswerAs<SessionDescription>(*std::move(known.answer), opening.request_id);
      mutex_.Unlock();
      std::move(answered)(std::move(answer));
      mutex_.Lock();
      return;
    }
    const auto taken = sessions_.find(opening.name);
    if (known.pending == nullptr && taken != sessions_.end()) known.pending = taken->second.pending;
    if (known.pending != nullptr) {
      known.pending->waiters.push_back([this, opening = std::move(opening), answered = std::move(answered)]() mutable {
        Open(std::move(opening), std::move(answered));
      });
      return;
    }
    const int64_t state_bytes = SessionSizeBytes(opening.first->config.num_features);
    status = CheckRoom(opening.name_field, opening.name, state_bytes);
    StateBudget& budget = *surroundings_.state_budget;
    if (status.ok() && !budget.TryTake(state_bytes)) {
      status = StateBytesReached(budget.max_bytes(), budget.bytes(), state_bytes);
    }
    if (status.ok()) {
      auto first = std::make_shared<SessionState>(*opening.first);
      const SessionIdentity identity{.name = opening.name, .uid = MakeSessionUid(), .create_time = absl::Now()};
      first->update_time = identity.create_time;
      session = std::make_shared<Session>(SessionJournal::New(
          identity, {.state = std::move(first), .snapshots = std::make_shared<const Snapshots>()}, surroundings_));
      auto pending = std::make_shared<Pending>();
      if (!opening.request_id.empty()) {
        pending_requests_[opening.request_id] = pending;
        const Answer answer = session->Describe(session->Observe());
        write.server_request =
            WriteRequest(ServerRing(), num_requests_++, opening.request_id, {opening.fingerprint, answer});
      }
      sessions_[opening.name] = Entry{.session = session, .pending = std::move(pending)};
    }
  }
  if (!status.ok()) return std::move(answered)(status);
  if (!session->is_stored()) return FinishOpening(opening, session, absl::OkStatus(), std::move(answered));
  write.sessions.push_back(session->FirstWrite());
  write.durability = opening.first->config.durability;
  surroundings_.store->Write(std::move(write), [this, opening = std::move(opening), session,
                                                answered = std::move(answered)](absl::Status stored) mutable {
    FinishOpening(opening, session, stored, std::move(answered));
  });
}

void SessionRegistry::FinishOpening(const Opening& opening, const std::shared_ptr<Session>& session,
                                    const absl::Status& status, Answered<SessionDescription> answered) {
  const SessionDescription description = session->Describe(session->Observe());
  std::shared_ptr<Pending> pending;
  {
    absl::MutexLock lock(&mutex_);
    const auto entry = sessions_.find(opening.name);
    pending = std::exchange(entry->second.pending, nullptr);
    pending_requests_.erase(opening.request_id);
    if (status.ok()) {
      memory_.Remember(opening.request_id, opening.fingerprint, description);
    } else {
      sessions_.erase(entry);
      surroundings_.state_budget->Give(SessionSizeBytes(description.config.num_features));
    }
  }
  if (status.ok()) {
    surroundings_.changes->Note(opening.name);
    std::move(answered)(description);
  } else {
    std::move(answered)(status);
  }
  for (auto& waiter : pending->waiters) std::move(waiter)();
}

absl::StatusOr<std::shared_ptr<Session>> SessionRegistry::Find(absl::string_view name) {
  if (absl::Status status = CheckSessionName("name", name); !status.ok()) return status;
  return FindNamed(name);
}

absl::StatusOr<std::shared_ptr<Session>> SessionRegistry::FindNamed(absl::string_view name) {
  {
    absl::ReaderMutexLock lock(&mutex_);
    const auto found = sessions_.find(name);
    if (found == sessions_.end() || found->second.pending != nullptr) return SessionNotFound(name);
    if (found->second.session != nullptr) return found->second.session;
  }
  return LoadSession(name);
}

absl::StatusOr<std::vector<std::shared_ptr<Session>>> SessionRegistry::FindAll(absl::string_view name) {
  std::vector<std::shared_ptr<Session>> sessions;
  if (!absl::EndsWith(name, "/")) {
    auto session = Find(name);
    if (!session.ok()) return session.status();
    sessions.push_back(*std::move(session));
    return sessions;
  }
  if (absl::Status status = CheckSessionName("name", absl::StripSuffix(name, "/")); !status.ok()) return status;
  std::vector<std::string> names;
  {
    absl::ReaderMutexLock lock(&mutex_);
    for (auto at = sessions_.lower_bound(name); at != sessions_.end() && absl::StartsWith(at->first, name); ++at) {
      if (at->second.pending == nullptr) names.push_back(at->first);
    }
  }
  for (const std::string& found : names) {
    auto session = FindNamed(found);
    if (absl::IsNotFound(session.status())) continue;  // deleted since
    if (!session.ok()) return session.status();
    sessions.push_back(*std::move(session));
  }
  if (sessions.empty()) return ModelNotFound(name);
  return sessions;
}

std::vector<SessionContent> SessionRegistry::ObserveAll(const std::vector<std::shared_ptr<Session>>& sessions) const {
  std::vector<SessionContent> contents;
  absl::ReaderMutexLock lock(surroundings_.together.get());
  for (const auto& session : sessions) contents.push_back(session->Observe());
  return contents;
}

absl::StatusOr<std::shared_ptr<Session>> SessionRegistry::LoadSession(absl::string_view name) {
  absl::MutexLock load_lock(&load_mutex_);
  std::string uid;
  {
    // Others may have come in between.
    absl::ReaderMutexLock lock(&mutex_);
    const auto found = sessions_.find(name);
    if (found == sessions_.end()) return SessionNotFound(name);
    if (found->second.session != nullptr) return found->second.session;
    uid = found->second.stored->uid;
  }
  auto stored = surroundings_.store->Load(uid);
  if (!stored.ok()) return stored.status();
  auto journal = SessionJournal::Restore(name, *stored, surroundings_);
  if (!journal.ok()) return journal.status();
  auto session = std::make_shared<Session>(*std::move(journal));
  absl::MutexLock lock(&mutex_);
  const auto found = sessions_.find(name);
  if (found == sessions_.end() || found->second.stored == nullptr || found->second.stored->uid != uid) {
    return SessionNotFound(name);
  }
  found->second = Entry{.session = session};
  return session;
}

absl::StatusOr<SessionPage> SessionRegistry::List(absl::string_view prefix, int64_t page_size,
                                                  absl::string_view page_token, const Labels& labels) const {
  const absl::string_view parent = absl::StripSuffix(prefix, "/");
  if (!prefix.empty()) {
    if (absl::Status status = CheckSessionName("prefix", parent); !status.ok()) return status;
  }
  if (absl::Status status = CheckLabels("label_filter", labels); !status.ok()) return status;
  if (page_size < 0 || page_size > kMaxPageSize) {
    return FieldError("page_size", absl::StrCat("page_size is ", page_size, ": send 0 up to ", kMaxPageSize));
  }
  if (page_size == 0) page_size = kDefaultPageSize;
  std::string last_name;
  if (!page_token.empty()) {
    auto read = ReadPageToken(Listing::kSessions, parent, page_token);
    if (!read.ok()) return read.status();
    last_name = *std::move(read);
  }

  SessionPage page;
  const auto take = [&](const Entry& entry) {
    if (entry.pending != nullptr || entry.is_damaged) return true;
    SessionDescription description =
        entry.session == nullptr ? entry.description : entry.session->Describe(entry.session->Observe());
    if (!HasLabels(description.config, labels)) return true;
    if (static_cast<int64_t>(page.sessions.size()) == page_size) {
      page.next_page_token = MakePageToken(Listing::kSessions, parent, page.sessions.back().name);
      return false;
    }
    page.sessions.push_back(std::move(description));
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

void SessionRegistry::Clone(absl::string_view name, const ChangeGuard& guard, std::string clone_name,
                            Answered<SessionDescription> answered) {
  absl::Status status = CheckGuardFields(guard);
  if (status.ok()) status = CheckSessionName("name", name);
  if (status.ok() && !clone_name.empty()) status = CheckSessionName("clone_name", clone_name);
  if (!status.ok()) return std::move(answered)(status);
  FingerprintBuilder builder("CloneSession");
  AddExpectations(guard, builder);
  Opening opening{.request_id = guard.request_id,
                  .fingerprint = builder.Add(name).Add(absl::string_view(clone_name)).Finish(),
                  .name_field = "clone_name",
                  .name = clone_name.empty() ? MakeSessionName() : std::move(clone_name)};
  Known known;
  {
    // The source may be gone, or another, by the time of a repeat.
    absl::ReaderMutexLock lock(&mutex_);
    known = Lookup(opening.request_id, opening.fingerprint);
  }
  if (known.answer.has_value()) {
    return std::move(answered)(AnswerAs<SessionDescription>(*std::move(known.answer), opening.request_id));
  }
  const auto source = Find(name);
  if (!source.ok()) return std::move(answered)(source.status());
  auto state = std::make_shared<SessionState>(*(*source)->Snapshot());
  status = CheckExpectations(guard, name, (*source)->uid(), state->generation);
  if (!status.ok()) return std::move(answered)(status);
  state->generation = state->lineage = state->parameters_version = state->running_version = 0;
  opening.first = std::move(state);
  Open(std::move(opening), std::move(answered));
}

SessionRegistry::Usage SessionRegistry::GetUsage() const {
  absl::ReaderMutexLock lock(&mutex_);
  return Usage{.num_sessions = static_cast<int64_t>(sessions_.size()),
               .state_bytes = surroundings_.state_budget->bytes()};
}

absl::Status SessionRegistry::CheckRoom(absl::string_view field, const std::string& name, int64_t state_bytes) const {
  const auto taken = sessions_.find(name);
  if (taken != sessions_.end()) {
    // One that is being opened may fail yet: its caller waits for it.
    return taken->second.pending == nullptr ? SessionExists(field, name) : absl::OkStatus();
  }
  if (static_cast<int64_t>(sessions_.size()) >= limits_.max_sessions) {
    return MakeError(absl::StatusCode::kResourceExhausted, ErrorReason::kLimitReached,
                     absl::StrCat("max_sessions is ", limits_.max_sessions, " and ", sessions_.size(),
                                  " are open: delete some or raise the limit"),
                     {{"limit", "max_sessions"}});
  }
  const StateBudget& budget = *surroundings_.state_budget;
  if (state_bytes > budget.max_bytes() - budget.bytes()) {
    return StateBytesReached(budget.max_bytes(), budget.bytes(), state_bytes);
  }
  return absl::OkStatus();
}

}  // namespace normserve
