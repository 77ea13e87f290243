// The order of a session's changes: each is made of the newest content, at most once, and shown once it is as durable
// as the session asks.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "server/session/change_feed.h"
#include "server/session/change_guard.h"
#include "server/session/request_memory.h"
#include "server/session/session_content.h"
#include "server/session/state_budget.h"
#include "server/store/state_store.h"

namespace normserve {

// What all sessions of a server share.
struct SessionSurroundings {
  // Held by what shows a change of several sessions, and by who wants to see them as of one moment. Before all locks of
  // journals.
  std::shared_ptr<absl::Mutex> together = std::make_shared<absl::Mutex>();
  std::shared_ptr<VectorBudget> vector_budget = std::make_shared<VectorBudget>(int64_t{512} << 20);
  std::shared_ptr<StateBudget> state_budget = std::make_shared<StateBudget>(int64_t{4} << 30);
  std::shared_ptr<ChangeFeed> changes = std::make_shared<ChangeFeed>();  // told of what is shown
  StateStore* store = nullptr;                                           // null: there is none; outlives the sessions
};

// What a change makes of the newest content.
struct SessionChange {
  std::shared_ptr<SessionState> state;  // null: stays as it is. The journal sets the versions of its vectors
  std::optional<Observations> observations;
  std::shared_ptr<const Snapshots> snapshots;      // null: stay as they are
  std::shared_ptr<const Collections> collections;  // the same
  bool deletes = false;
  Answer answer;
  std::optional<StoredRequest> server_request;  // stored with the change
  // Of the state budget: taken already, and given back if the change fails; to be given once it is stored.
  int64_t taken_bytes = 0;
  int64_t freed_bytes = 0;
};

// Changes are made one after the other under a short lock and queued for the store. Until it has stored one, nobody
// sees it: Visible is the newest content that is durable, a repeat of the request waits, and so does an error that only
// holds if the change is stored. Where the store refuses one, it and all made of it are dropped, their requests fail,
// and the next is made of the visible content. Without a store (or with Durability::kNone) a change is visible at once.
//
// Thread-safe. Held by shared_ptr: the store's callbacks keep it alive.
class SessionJournal : public std::enable_shared_from_this<SessionJournal> {
 public:
  // Of a new session. `first.state->config.durability` says whether the store hears of it.
  static std::shared_ptr<SessionJournal> New(SessionIdentity identity, SessionContent first,
                                             SessionSurroundings surroundings);

  // Of a stored one that is looked for as `name`; what it remembers of requests is read when it is first needed.
  // DATA_LOSS (STORED_DATA_LOST): a record is damaged.
  static absl::StatusOr<std::shared_ptr<SessionJournal>> Restore(absl::string_view name, const StoredSession& stored,
                                                                 SessionSurroundings surroundings);

  const SessionIdentity& identity() const { return identity_; }
  const SessionSurroundings& surroundings() const { return surroundings_; }
  bool is_stored() const { return is_stored_; }

  // What a store is told of a new session.
  SessionWrite FirstWrite() const;

  SessionContent Visible() const ABSL_LOCKS_EXCLUDED(content_mutex_);

  // The visible content, and whether `request_id` may be remembered, as of one moment: if so, ask Recall.
  std::pair<SessionContent, bool> Admit(const std::string& request_id) ABSL_LOCKS_EXCLUDED(mutex_);

  // The answer first given; nothing if it is not remembered. INVALID_ARGUMENT: REQUEST_ID_REUSED; what the store says.
  absl::StatusOr<std::optional<Answer>> Recall(const std::string& request_id, const Fingerprint& fingerprint)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Made of the newest content, under the journal's lock; called again if that content was dropped.
  using Make = absl::AnyInvocable<absl::StatusOr<SessionChange>(const SessionContent& newest)>;
  using Made = absl::AnyInvocable<void(absl::StatusOr<Answer>) &&>;
  // Calls `made` once, before this returns or from a thread of the store's: with the first answer if the request is
  // remembered, the error of `make`, ABORTED (UID_MISMATCH, GENERATION_MISMATCH), what the store says, or the answer.
  void Change(ChangeGuard guard, Fingerprint fingerprint, Make make, Made made) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  friend class JournalGroup;

  // Whether what it waited for is visible now; false: it was dropped.
  using Waiter = absl::AnyInvocable<void(bool is_visible) &&>;
  using Callbacks = std::vector<absl::AnyInvocable<void() &&>>;

  // A change that is made and not yet stored.
  struct Pending {
    int64_t chain = 0;
    int64_t sequence = 0;
    bool is_settled = false;  // nothing is to come of it but its turn
    SessionContent content;
    std::string request_id;
    Fingerprint fingerprint;
    Answer answer;
    Made made;
    int64_t taken_bytes = 0;
    int64_t freed_bytes = 0;
    std::vector<std::pair<VectorKind, int64_t>> kept;
    std::vector<Waiter> waiters;
  };

  SessionJournal(SessionIdentity identity, SessionContent first, SessionSurroundings surroundings, int64_t epoch,
                 int64_t sequence);

  // Reads what a stored session remembers, if that was not done yet: before its first change, and not at its start, for
  // it may be much longer than the session itself. After an error it is tried again the next time.
  absl::Status Recollect() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // What `guard` gets of what is there already; nothing if a change is due. `depends_on` is what the answer holds with.
  std::optional<absl::StatusOr<Answer>> Known(const ChangeGuard& guard, const Fingerprint& fingerprint,
                                              Pending** depends_on) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  SessionContent Newest() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return pending_.empty() ? Visible() : pending_.back().content;
  }
  // The pending change of this request; null if there is none.
  Pending* FindPending(const std::string& request_id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Makes a change the newest, and takes `made`; what a store is to be told.
  StoreWrite Append(const ChangeGuard& guard, const Fingerprint& fingerprint, SessionChange change, Made& made)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  SessionWrite WriteOf(const SessionContent& before, Pending& pending, int64_t sequence)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void KeepVectors(const SessionContent& before, Pending& pending, SessionWrite& write)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void DropVectors(SessionWrite& write) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Whether an answer, remembered or pending, was computed with these.
  bool IsUsed(const void* vectors) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool IsUsedByPending(VectorKind kind, int64_t version) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // What came of one; those of other sessions' durability may be answered out of turn, and wait for theirs.
  void Settle(int64_t chain, int64_t sequence, const absl::Status& status, Callbacks& callbacks)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ShowFirst(Callbacks& callbacks) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Drops one and all that was made of it.
  void DropFrom(std::deque<Pending>::iterator first, const absl::Status& status, Callbacks& callbacks)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // Constant.
  const SessionIdentity identity_;
  const SessionSurroundings surroundings_;
  const bool is_stored_;
  const int64_t epoch_;

  // Before content_mutex_ and the store's.
  mutable absl::Mutex mutex_;
  bool is_recollected_ ABSL_GUARDED_BY(mutex_) = true;  // false: the memory is still in the store alone
  RequestMemory memory_ ABSL_GUARDED_BY(mutex_);
  std::deque<Pending> pending_ ABSL_GUARDED_BY(mutex_);
  int64_t chain_ ABSL_GUARDED_BY(mutex_) = 0;     // counts what was dropped: later word of it is ignored
  int64_t sequence_ ABSL_GUARDED_BY(mutex_) = 0;  // of the newest change made
  // Requests so far, pending ones too; kNotRecorded before Recollect where the head does not say.
  int64_t num_remembered_ ABSL_GUARDED_BY(mutex_) = 0;
  std::set<std::pair<VectorKind, int64_t>> kept_ ABSL_GUARDED_BY(mutex_);  // in the store, beside the current ones
  std::vector<std::pair<VectorKind, int64_t>> released_ ABSL_GUARDED_BY(mutex_);  // to be dropped with the next write

  // Held to copy or replace a few pointers.
  mutable absl::Mutex content_mutex_;
  SessionContent visible_ ABSL_GUARDED_BY(content_mutex_);
};

}  // namespace normserve
