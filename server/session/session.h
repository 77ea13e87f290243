// One batch-norm layer held by the server.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "kernels/batch_norm.h"
#include "server/session/change_guard.h"
#include "server/session/request_memory.h"
#include "server/session/session_state.h"

namespace normserve {

// A batch that was computed and is to be folded in.
struct ForwardCommit {
  std::shared_ptr<const SessionState> snapshot;  // the state it was computed with
  Moments moments;                               // of the batch, finite, count >= 2
  NormalizedWith normalized_with = NormalizedWith::kBatch;
  Update update = Update::kRunning;  // kRunning or kShadow
};

// Moments that a session keeps beside its state. Null: no batch so far.
struct Observations {
  std::shared_ptr<const Moments> last_batch;  // of the newest batch that updated the running statistics
  std::shared_ptr<const Moments> shadow;      // of all that updated the shadow moments since SHADOW began, merged
};

// A session's state is an immutable snapshot; only this class makes a new one. A change is made whole or not at all.
// Nothing is locked while a device works.
//
// Thread-safe. Held by shared_ptr: a request in flight keeps the session alive after it was deleted.
class Session {
 public:
  // `first` has its vectors; its generation is 0. `budget` bounds what all sessions keep for repeated requests.
  Session(std::string name, SessionState first, absl::Time create_time, std::shared_ptr<VectorBudget> budget);

  const std::string& name() const { return name_; }
  // Random: tells this session from a later one of the same name.
  const std::string& uid() const { return uid_; }
  absl::Time create_time() const { return create_time_; }

  // The newest state. Never waits for a commit.
  std::shared_ptr<const SessionState> Snapshot() const ABSL_LOCKS_EXCLUDED(state_mutex_);

  // What is kept beside the newest state, as of the same moment.
  struct Observed {
    std::shared_ptr<const SessionState> state;
    Observations observations;
  };
  Observed Observe() const ABSL_LOCKS_EXCLUDED(state_mutex_);

  // This session as it is, or was, in `state`.
  SessionDescription Describe(const SessionState& state) const;

  // The newest state, and whether `request_id` is remembered, as of one moment.
  struct Admission {
    std::shared_ptr<const SessionState> snapshot;
    bool is_remembered = false;
  };
  Admission Admit(const std::string& request_id) const ABSL_LOCKS_EXCLUDED(commit_mutex_);

  // The answer first given to a Forward; nothing if it is not remembered. INVALID_ARGUMENT: REQUEST_ID_REUSED.
  absl::StatusOr<std::optional<ForwardAnswer>> Recall(const std::string& request_id,
                                                      const Fingerprint& fingerprint) const
      ABSL_LOCKS_EXCLUDED(commit_mutex_);

  // Folds a batch into the newest state, or merges it into the shadow moments, and returns what to answer. If
  // `guard.request_id` was committed meanwhile, by a copy of the same request, returns that answer and changes nothing.
  // ABORTED: LINEAGE_CHANGED, GENERATION_MISMATCH, UID_MISMATCH. INVALID_ARGUMENT: REQUEST_ID_REUSED, NON_FINITE.
  absl::StatusOr<ForwardAnswer> CommitForward(const ChangeGuard& guard, const Fingerprint& fingerprint,
                                              const ForwardCommit& commit) ABSL_LOCKS_EXCLUDED(commit_mutex_);

  // Sets what a Forward admitted from now on does by default; kShadow drops the shadow moments so far. Errors as
  // CommitForward, and NOT_FOUND once deleted.
  absl::StatusOr<SessionDescription> SetMode(const ChangeGuard& guard, Mode mode) ABSL_LOCKS_EXCLUDED(commit_mutex_);

  // Replaces weight, bias or both (an empty one stays) and starts a new lineage. Errors as SetMode, and
  // INVALID_ARGUMENT if both are empty, a length is not C or a value is not finite; FAILED_PRECONDITION (NOT_AFFINE).
  absl::StatusOr<SessionDescription> SetParameters(const ChangeGuard& guard, std::vector<float> weight,
                                                   std::vector<float> bias) ABSL_LOCKS_EXCLUDED(commit_mutex_);

  // Marks the session deleted: nothing is folded any more. Errors as SetMode; remembers nothing, which is the
  // registry's part.
  absl::StatusOr<Deletion> Delete(const ChangeGuard& guard) ABSL_LOCKS_EXCLUDED(commit_mutex_);

 private:
  // The first answer if the request is remembered, else makes `change` of a copy of the newest state.
  template <typename Change>
  absl::StatusOr<SessionDescription> ChangeState(const ChangeGuard& guard, const Fingerprint& fingerprint,
                                                 Change change) ABSL_LOCKS_EXCLUDED(commit_mutex_);
  void Publish(SessionState next, Observations observations) ABSL_EXCLUSIVE_LOCKS_REQUIRED(commit_mutex_);

  // Constant.
  const std::string name_;
  const std::string uid_;
  const absl::Time create_time_;

  // Held while a change is made. Before state_mutex_.
  mutable absl::Mutex commit_mutex_;
  bool is_deleted_ ABSL_GUARDED_BY(commit_mutex_) = false;
  RequestMemory memory_ ABSL_GUARDED_BY(commit_mutex_);

  // Held to copy or replace a few pointers. Replaced only under commit_mutex_ too.
  mutable absl::Mutex state_mutex_;
  std::shared_ptr<const SessionState> state_ ABSL_GUARDED_BY(state_mutex_);
  Observations observations_ ABSL_GUARDED_BY(state_mutex_);
};

}  // namespace normserve
