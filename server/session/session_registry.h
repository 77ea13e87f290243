// The sessions of a server, by name.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "server/session/change_guard.h"
#include "server/session/request_memory.h"
#include "server/session/session.h"

namespace normserve {

struct SessionLimits {
  int64_t max_sessions = 10'000;
  int64_t max_state_bytes = int64_t{4} << 30;
  int64_t max_num_features = 1'000'000;
};

// A session to be opened.
struct SessionDraft {
  std::string name;        // empty: one is made
  std::string request_id;  // empty: not protected
  SessionConfig config;
  Mode mode = Mode::kTrain;
  AffineParameters parameters;                        // an empty vector means 1 (weight) or 0 (bias)
  std::optional<NormalizationStatistics> statistics;  // unset: mean 0, variance 1
  int64_t num_batches_tracked = 0;
};

struct SessionPage {
  std::vector<std::shared_ptr<Session>> sessions;
  std::string next_page_token;  // empty: this is the last page
};

// Thread-safe. A session that was deleted lives on in the requests that hold it.
class SessionRegistry {
 public:
  explicit SessionRegistry(SessionLimits limits) : limits_(limits) {}

  const SessionLimits& limits() const { return limits_; }

  // Opens a session. INVALID_ARGUMENT: a field is out of range. ALREADY_EXISTS: the name is taken.
  // RESOURCE_EXHAUSTED (LIMIT_REACHED): too many sessions or bytes.
  absl::StatusOr<SessionDescription> Create(SessionDraft draft) ABSL_LOCKS_EXCLUDED(mutex_);

  // NOT_FOUND (SESSION_NOT_FOUND); INVALID_ARGUMENT: the name is not legal.
  absl::StatusOr<std::shared_ptr<Session>> Find(absl::string_view name) const ABSL_LOCKS_EXCLUDED(mutex_);

  // Sessions whose name is `prefix` or lies below it ("resnet50" and "resnet50/" are the same prefix), in the order of
  // their bytes. `page_size` 0: 100. INVALID_ARGUMENT: prefix, page_size or page_token.
  absl::StatusOr<SessionPage> List(absl::string_view prefix, int64_t page_size, absl::string_view page_token) const
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Opens `clone_name` (empty: one is made) with the state of `name`, bit for bit, and generation 0. Errors as Create
  // and Find; ABORTED: the source is not what `guard` expects.
  absl::StatusOr<SessionDescription> Clone(absl::string_view name, const ChangeGuard& guard, std::string clone_name)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Forgets a session. Errors as Find; ABORTED: it is not what `guard` expects.
  absl::StatusOr<Deletion> Delete(absl::string_view name, const ChangeGuard& guard) ABSL_LOCKS_EXCLUDED(mutex_);

  // Open now, and the bytes that they are charged with.
  struct Usage {
    int64_t num_sessions = 0;
    int64_t state_bytes = 0;
  };
  Usage GetUsage() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  // Whether `name` is free and there is room; `field` is where the name came from.
  absl::Status CheckRoom(absl::string_view field, const std::string& name, int64_t state_bytes) const
      ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  SessionDescription Insert(std::string name, SessionState state) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // Constant.
  const SessionLimits limits_;
  const std::shared_ptr<VectorBudget> vector_budget_ = std::make_shared<VectorBudget>(kRememberedVectorBytes);

  // Before a session's locks.
  mutable absl::Mutex mutex_;
  std::map<std::string, std::shared_ptr<Session>, std::less<>> sessions_ ABSL_GUARDED_BY(mutex_);
  int64_t state_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  // Of Create, Clone and Delete, which outlive the session they concern.
  RequestMemory memory_ ABSL_GUARDED_BY(mutex_){kRememberedRequests, VectorLimits{}};

  // More than the 1,024 promised, as all clients share them.
  static constexpr size_t kRememberedRequests = 16'384;
  // Of all sessions, for the repeats of requests that changed one; above it, each keeps only the newest.
  static constexpr int64_t kRememberedVectorBytes = int64_t{512} << 20;
};

}  // namespace normserve
