// What SessionRegistry does to forget sessions: one, or those of a model.
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/strip.h"
#include "server/session/model.h"
#include "server/session/session_errors.h"
#include "server/session/session_name.h"
#include "server/session/session_registry.h"
#include "server/session/stored_requests.h"

namespace normserve {

template <typename Deleted, typename DeleteFound>
void SessionRegistry::DeleteOnce(absl::string_view name, const ChangeGuard& guard, Answered<Deleted> answered,
                                 DeleteFound delete_found) {
  FingerprintBuilder builder("DeleteSession");
  AddExpectations(guard, builder);
  const Fingerprint fingerprint = builder.Add(name).Finish();
  Known known;
  int64_t request_sequence = 0;
  {
    absl::MutexLock lock(&mutex_);
    known = Lookup(guard.request_id, fingerprint);
    if (known.pending != nullptr) {
      known.pending->waiters.push_back(
          [this, name = std::string(name), guard, answered = std::move(answered), delete_found]() mutable {
            DeleteOnce<Deleted>(name, guard, std::move(answered), delete_found);
          });
      return;
    }
    if (!known.answer.has_value() && !guard.request_id.empty()) {
      pending_requests_[guard.request_id] = std::make_shared<Pending>();
      request_sequence = num_requests_++;
    }
  }
  if (known.answer.has_value()) {
    return std::move(answered)(AnswerAs<Deleted>(*std::move(known.answer), guard.request_id));
  }
  Session::Remember remember;
  if (!guard.request_id.empty()) {
    remember = [request_sequence, id = guard.request_id, fingerprint](Answer answer) {
      return WriteRequest(ServerRing(), request_sequence, id, {fingerprint, std::move(answer)});
    };
  }
  ChangeGuard expectations = guard;
  expectations.request_id.clear();
  delete_found(std::string(name), expectations, std::move(remember),
               [this, fingerprint, id = guard.request_id,
                answered = std::move(answered)](absl::StatusOr<Deleted> deleted) mutable {
                 std::shared_ptr<Pending> pending;
                 {
                   absl::MutexLock lock(&mutex_);
                   if (const auto found = pending_requests_.find(id); found != pending_requests_.end()) {
                     pending = std::move(found->second);
                     pending_requests_.erase(found);
                   }
                   if (deleted.ok()) {
                     memory_.Remember(id, fingerprint, *deleted);
                     if constexpr (std::is_same_v<Deleted, Deletion>) {
                       Forget(deleted->name);
                     } else {
                       for (const Deletion& deletion : *deleted) Forget(deletion.name);
                     }
                   }
                 }
                 std::move(answered)(std::move(deleted));
                 if (pending == nullptr) return;
                 for (auto& waiter : pending->waiters) std::move(waiter)();
               });
}

void SessionRegistry::Delete(absl::string_view name, const ChangeGuard& guard, Answered<Deletion> answered) {
  absl::Status status = CheckGuardFields(guard);
  if (status.ok()) status = CheckSessionName("name", name);
  if (!status.ok()) return std::move(answered)(status);
  DeleteOnce<Deletion>(name, guard, std::move(answered),
                       [this](const std::string& found, const ChangeGuard& expectations, Session::Remember remember,
                              Answered<Deletion> finish) {
                         DeleteSession(found, expectations, std::move(remember), std::move(finish));
                       });
}

void SessionRegistry::DeleteModel(absl::string_view name, const ChangeGuard& guard, Answered<Deletions> answered) {
  absl::Status status = CheckGuardFields(guard);
  if (status.ok()) status = CheckSessionName("name", absl::StripSuffix(name, "/"));
  if (!status.ok()) return std::move(answered)(status);
  DeleteOnce<Deletions>(
      name, guard, std::move(answered),
      [this](const std::string& found, const ChangeGuard& expectations, Session::Remember remember,
             Answered<Deletions> finish) {
        auto sessions = FindAll(found);
        if (!sessions.ok()) return std::move(finish)(sessions.status());
        Model(found, *std::move(sessions)).Delete(expectations, std::move(remember), std::move(finish));
      });
}

void SessionRegistry::DeleteSession(const std::string& name, const ChangeGuard& guard, Session::Remember remember,
                                    Answered<Deletion> answered) {
  const auto session = Find(name);
  if (session.ok()) return (*session)->Delete(guard, std::move(remember), std::move(answered));
  if (session.status().code() != absl::StatusCode::kDataLoss) return std::move(answered)(session.status());
  std::shared_ptr<const StoredHead> stored;
  Deletion deletion{.name = name};
  {
    absl::ReaderMutexLock lock(&mutex_);
    const auto found = sessions_.find(name);
    if (found != sessions_.end()) {
      stored = found->second.stored;
      deletion.uid = found->second.description.uid;
      deletion.generation = found->second.description.generation;
    }
  }
  if (stored == nullptr) return std::move(answered)(SessionNotFound(name));
  if (absl::Status status = CheckExpectations(guard, name, deletion.uid, deletion.generation); !status.ok()) {
    return std::move(answered)(status);
  }
  DeleteDamaged(*stored, deletion, std::move(remember), std::move(answered));
}

void SessionRegistry::DeleteDamaged(const StoredHead& head, const Deletion& deletion, Session::Remember remember,
                                    Answered<Deletion> answered) {
  StoreWrite write;
  write.sessions.push_back(
      {.kind = SessionWrite::Kind::kDelete, .uid = head.uid, .epoch = head.epoch, .sequence = head.sequence + 1});
  if (remember) write.server_request = remember(deletion);
  surroundings_.store->Write(std::move(write), [deletion, answered = std::move(answered)](absl::Status stored) mutable {
    if (!stored.ok()) return std::move(answered)(stored);
    std::move(answered)(deletion);
  });
}

void SessionRegistry::Forget(const std::string& name) {
  const auto found = sessions_.find(name);
  if (found == sessions_.end()) return;
  // The bytes of one that was loaded were given back by its own deletion.
  if (found->second.session == nullptr)
    surroundings_.state_budget->Give(ChargedBytes(found->second.description, *found->second.stored));
  sessions_.erase(found);
  surroundings_.changes->Note(name);
}

}  // namespace normserve
