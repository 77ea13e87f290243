// The sessions of a server, by name.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "server/session/change_guard.h"
#include "server/session/request_memory.h"
#include "server/session/session.h"
#include "server/session/session_draft.h"
#include "server/store/state_store.h"

namespace normserve {

struct RequestRing;

struct SessionLimits {
  int64_t max_sessions = 10'000;
  int64_t max_state_bytes = int64_t{4} << 30;
  int64_t max_num_features = 1'000'000;
  CollectionLimits collections;
};

using Labels = std::map<std::string, std::string>;

struct SessionPage {
  std::vector<SessionDescription> sessions;
  std::string next_page_token;  // empty: this is the last page
};

// What a store held.
struct LoadReport {
  int64_t num_sessions = 0;
  // Names of those whose record cannot be read, escaped where they are not legal: calls for them answer DATA_LOSS.
  std::vector<std::string> damaged;
  // Of the Creates, Clones and Deletes remembered, those that cannot be read: a repeat of one is taken for a new call.
  int64_t num_lost_requests = 0;
};

// With a store, sessions stay in it until a call needs them. A call that opens or deletes calls its last argument once,
// as Session's changes do; what it opens is found once it is stored.
//
// A session whose record in the store is damaged keeps its name and counts in GetUsage, but is not listed, as nothing
// is known of it; calls that name it answer DATA_LOSS, and Delete removes it.
//
// Thread-safe. A session that was deleted lives on in the requests that hold it.
class SessionRegistry {
 public:
  // `store` is null or outlives the registry.
  explicit SessionRegistry(SessionLimits limits, StateStore* store = nullptr);

  // Takes over what the store holds: once, before all else. Errors of the store; what is damaged is reported and the
  // rest is served.
  absl::StatusOr<LoadReport> Load() ABSL_LOCKS_EXCLUDED(mutex_);

  const SessionLimits& limits() const { return limits_; }

  // Of a session whose draft says nothing.
  Durability default_durability() const {
    return surroundings_.store == nullptr ? Durability::kNone : Durability::kCommit;
  }

  template <typename Answer>
  using Answered = Session::Answered<Answer>;

  // Opens a session. INVALID_ARGUMENT: a field is out of range. ALREADY_EXISTS: the name is taken. RESOURCE_EXHAUSTED
  // (LIMIT_REACHED): too many sessions or bytes. FAILED_PRECONDITION (DURABILITY_UNAVAILABLE). And what the store says.
  void Create(SessionDraft draft, Answered<SessionDescription> answered) ABSL_LOCKS_EXCLUDED(mutex_);

  // NOT_FOUND (SESSION_NOT_FOUND); INVALID_ARGUMENT: the name is not legal; DATA_LOSS (STORED_DATA_LOST). The first
  // call for a session in the store reads it from there.
  absl::StatusOr<std::shared_ptr<Session>> Find(absl::string_view name) ABSL_LOCKS_EXCLUDED(mutex_);

  // The sessions that `name` speaks of, in the order of their names: the one of that name, or where it ends in '/'
  // those of a model, whose names begin with it. Errors as Find; SESSION_NOT_FOUND where none does.
  absl::StatusOr<std::vector<std::shared_ptr<Session>>> FindAll(absl::string_view name) ABSL_LOCKS_EXCLUDED(mutex_);

  // What `sessions` hold, as of one moment: a change of several is in all of them or in none.
  std::vector<SessionContent> ObserveAll(const std::vector<std::shared_ptr<Session>>& sessions) const;

  // Up to `max_count` of the sessions that are in memory, in the order of their names: reads nothing from the store.
  std::vector<std::shared_ptr<Session>> InMemory(int64_t max_count) const ABSL_LOCKS_EXCLUDED(mutex_);

  // Sessions whose name is `prefix` or lies below it ("resnet50" and "resnet50/" are the same prefix) and that have all
  // of `labels`, in the order of their bytes. `page_size` 0: 100. INVALID_ARGUMENT: prefix, page_size, page_token,
  // labels.
  absl::StatusOr<SessionPage> List(absl::string_view prefix, int64_t page_size, absl::string_view page_token,
                                   const Labels& labels = {}) const ABSL_LOCKS_EXCLUDED(mutex_);

  // Opens `clone_name` (empty: one is made) with the state of `name`, bit for bit, and generation 0. Errors as Create
  // and Find; ABORTED: the source is not what `guard` expects.
  void Clone(absl::string_view name, const ChangeGuard& guard, std::string clone_name,
             Answered<SessionDescription> answered) ABSL_LOCKS_EXCLUDED(mutex_);

  // Forgets a session, one that cannot be read any more too. Errors as Find but DATA_LOSS; ABORTED: it is not what
  // `guard` expects; and what the store says.
  void Delete(absl::string_view name, const ChangeGuard& guard, Answered<Deletion> answered)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Forgets the sessions of the model `name`, which ends in '/': all that FindAll finds or none, in one write. Answers
  // in the order of their names. Errors as FindAll, with DATA_LOSS for one that cannot be read: Delete it by itself;
  // NOT_FOUND also where another call deletes one of them at the same moment; INVALID_ARGUMENT: `guard` expects a
  // generation or uid, which go with a single session; and what the store says.
  void DeleteModel(absl::string_view name, const ChangeGuard& guard, Answered<Deletions> answered)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Open now, and the bytes that they are charged with.
  struct Usage {
    int64_t num_sessions = 0;
    int64_t state_bytes = 0;
  };
  Usage GetUsage() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  friend class ModelImport;

  // An opening or deletion that is not stored yet; who depends on it tries again then.
  struct Pending {
    std::vector<absl::AnyInvocable<void() &&>> waiters;
  };

  struct Entry {
    std::shared_ptr<Session> session;          // null: it is in the store
    std::shared_ptr<Pending> pending;          // set: it is being opened, and not found yet
    std::shared_ptr<const StoredHead> stored;  // where session is null: what the store holds of it,
    SessionDescription description;            // and what that says
    bool is_damaged = false;                   // but of the uid, where that is legal, it says nothing
  };

  // A session on its way to be opened.
  struct Opening {
    std::string request_id;
    Fingerprint fingerprint;
    const char* name_field;  // where `name` came from
    std::string name;
    std::shared_ptr<const SessionState> first;
  };

  // A call as the requests remembered for the server see it.
  struct Known {
    std::optional<absl::StatusOr<Answer>> answer;  // what to answer
    std::shared_ptr<Pending> pending;              // or what to wait for; neither: it is new
  };

  // Of the requests remembered for the server.
  static RequestRing ServerRing();
  // What a stored session, its snapshots and what it gathers are charged with.
  static int64_t ChargedBytes(const SessionDescription& session, const StoredHead& stored);
  // Takes over one that the store holds; false: its record is damaged.
  bool Take(const StoredHead& stored) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TakeDamaged(const StoredHead& stored, LoadReport& report) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Known Lookup(const std::string& request_id, const Fingerprint& fingerprint) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  // Whether there is room for one more; `field` is where the name came from.
  absl::Status CheckRoom(absl::string_view field, const std::string& name, int64_t state_bytes) const
      ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  void Open(Opening opening, Answered<SessionDescription> answered) ABSL_LOCKS_EXCLUDED(mutex_);
  void FinishOpening(const Opening& opening, const std::shared_ptr<Session>& session, const absl::Status& status,
                     Answered<SessionDescription> answered) ABSL_LOCKS_EXCLUDED(mutex_);
  // Deletes, once the request is known to be new, as `delete_found` does with what is to be called in the end.
  template <typename Deleted, typename DeleteFound>
  void DeleteOnce(absl::string_view name, const ChangeGuard& guard, Answered<Deleted> answered,
                  DeleteFound delete_found) ABSL_LOCKS_EXCLUDED(mutex_);
  void DeleteSession(const std::string& name, const ChangeGuard& guard, Session::Remember remember,
                     Answered<Deletion> answered) ABSL_LOCKS_EXCLUDED(mutex_);
  void DeleteDamaged(const StoredHead& head, const Deletion& deletion, Session::Remember remember,
                     Answered<Deletion> answered);
  void Forget(const std::string& name) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Find of a name that is in sessions_, legal or not.
  absl::StatusOr<std::shared_ptr<Session>> FindNamed(absl::string_view name) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<std::shared_ptr<Session>> LoadSession(absl::string_view name) ABSL_LOCKS_EXCLUDED(mutex_);

  // Constant.
  const SessionLimits limits_;
  SessionSurroundings surroundings_;

  // Held while one session is read from the store. Before mutex_.
  absl::Mutex load_mutex_;

  // Before a session's locks.
  mutable absl::Mutex mutex_;
  std::map<std::string, Entry, std::less<>> sessions_ ABSL_GUARDED_BY(mutex_);
  // Of Create, Clone and Delete, which outlive the session they concern.
  RequestMemory memory_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, std::shared_ptr<Pending>> pending_requests_ ABSL_GUARDED_BY(mutex_);
  int64_t num_requests_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace normserve
