// One batch-norm layer held by the server.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kernels/batch_norm.h"
#include "server/session/change_guard.h"
#include "server/session/session_changes.h"
#include "server/session/session_journal.h"
#include "server/session/session_state.h"

namespace normserve {

// A batch that was computed and is to be folded in.
struct ForwardCommit {
  std::shared_ptr<const SessionState> snapshot;  // the state it was computed with
  Moments moments;                               // of the batch, finite, count >= 2
  NormalizedWith normalized_with = NormalizedWith::kBatch;
  Update update = Update::kRunning;           // kRunning or kShadow
  std::shared_ptr<const SessionState> named;  // the snapshot's, for kSnapshot and kBlend
};

// A session's state is an immutable snapshot; only this class makes a new one. A change is made whole or not at all.
// Nothing is locked while a device works.
//
// What is read here is as durable as the session asks. A change calls its last argument once, with the answer or why
// nothing was changed: before it returns, or, where a store keeps the session, from a thread of the store's.
//
// Thread-safe. Held by shared_ptr: a request in flight keeps the session alive after it was deleted.
class Session {
 public:
  explicit Session(std::shared_ptr<SessionJournal> journal) : journal_(std::move(journal)) {}

  const std::string& name() const { return journal_->identity().name; }
  // The order of its changes, for those of several sessions together (joint_change.h). Never null.
  const std::shared_ptr<SessionJournal>& journal() const { return journal_; }
  // Random: tells this session from a later one of the same name.
  const std::string& uid() const { return journal_->identity().uid; }

  // The newest state. Never waits for a commit.
  std::shared_ptr<const SessionState> Snapshot() const { return journal_->Visible().state; }

  // The newest state and all that is kept beside it, as of one moment.
  SessionContent Observe() const { return journal_->Visible(); }

  // This session as it is, or was, with `content`.
  SessionDescription Describe(const SessionContent& content) const {
    return normserve::Describe(journal_->identity(), content);
  }
  SnapshotDescription Describe(absl::string_view snapshot_name, const StateSnapshot& snapshot) const {
    return normserve::Describe(journal_->identity(), snapshot_name, snapshot);
  }

  // What a store is told of the session when it is made.
  SessionWrite FirstWrite() const { return journal_->FirstWrite(); }
  // Whether a store keeps it.
  bool is_stored() const { return journal_->is_stored(); }

  // The newest state, and whether `request_id` may be remembered, as of one moment: if so, ask Recall.
  struct Admission {
    std::shared_ptr<const SessionState> snapshot;
    std::shared_ptr<const Snapshots> named;  // the snapshots by name, as of then
    bool may_be_remembered = false;
  };
  Admission Admit(const std::string& request_id) const;

  // The answer first given to a Forward; nothing if it is not remembered. INVALID_ARGUMENT: REQUEST_ID_REUSED;
  // what the store says.
  absl::StatusOr<std::optional<ForwardAnswer>> Recall(const std::string& request_id,
                                                      const Fingerprint& fingerprint) const;

  template <typename Answer>
  using Answered = absl::AnyInvocable<void(absl::StatusOr<Answer>) &&>;

  // Folds a batch into the newest state, or merges it into the shadow moments, and answers what to reply. If
  // `guard.request_id` was committed meanwhile, by a copy of the same request, answers as then and changes nothing.
  // ABORTED: LINEAGE_CHANGED, GENERATION_MISMATCH, UID_MISMATCH. INVALID_ARGUMENT: REQUEST_ID_REUSED, NON_FINITE. And
  // what the store says.
  void CommitForward(const ChangeGuard& guard, const Fingerprint& fingerprint, ForwardCommit commit,
                     Answered<ForwardAnswer> answered);

  // Sets what a Forward admitted from now on does by default; kShadow drops the shadow moments so far. Errors as
  // CommitForward, and NOT_FOUND once deleted.
  void SetMode(const ChangeGuard& guard, Mode mode, Answered<SessionDescription> answered);

  // Replaces weight, bias or both (an empty one stays) and starts a new lineage. Errors as SetMode, and
  // INVALID_ARGUMENT if both are empty, a length is not C or a value is not finite; FAILED_PRECONDITION (NOT_AFFINE).
  void SetParameters(const ChangeGuard& guard, std::vector<float> weight, std::vector<float> bias,
                     Answered<SessionDescription> answered);

  // Keeps the newest state under `name`. Errors as SetMode, and INVALID_ARGUMENT: the name is not legal; ALREADY_EXISTS
  // (SNAPSHOT_EXISTS); RESOURCE_EXHAUSTED (LIMIT_REACHED): snapshots, or bytes of state.
  void TakeSnapshot(const ChangeGuard& guard, std::string name, Answered<SnapshotDescription> answered);

  // Goes back to a snapshot: one generation on, in a new lineage. Errors as SetMode; NOT_FOUND (SNAPSHOT_NOT_FOUND);
  // DATA_LOSS (STORED_DATA_LOST): the snapshot is lost, the session is as it was.
  void RestoreSnapshot(const ChangeGuard& guard, std::string name, Answered<SessionDescription> answered);

  // Forgets a snapshot, one that is lost too. Errors as RestoreSnapshot but DATA_LOSS.
  void DeleteSnapshot(const ChangeGuard& guard, std::string name, Answered<SnapshotDescription> answered);

  // Marks the session deleted: nothing is folded any more. Errors as SetMode. To remember the request is the registry's
  // part: the guard has no id here, and what `remember` makes of the answer (nothing, if it is empty) is stored with
  // it.
  using Remember = std::function<StoredRequest(Answer)>;
  void Delete(const ChangeGuard& guard, Remember remember, Answered<Deletion> answered);

 private:
  absl::StatusOr<SessionChange> Fold(const ForwardCommit& commit, const SessionContent& newest) const;
  template <typename Answer>
  void Change(const ChangeGuard& guard, const Fingerprint& fingerprint, MakeChange change, Answered<Answer> answered);
  template <typename Answer>
  void Make(const ChangeGuard& guard, const Fingerprint& fingerprint, SessionJournal::Make make,
            Answered<Answer> answered);

  const std::shared_ptr<SessionJournal> journal_;
};

}  // namespace normserve
