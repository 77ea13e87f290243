// How many calls and bytes are in work, and whether more are let in.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/rpc/call_observer.h"

namespace normserve {

// Thread-safe. Made by make_shared only: what it hands out keeps it alive.
class CallGate : public std::enable_shared_from_this<CallGate> {
 public:
  // `observer` is told of every call that came here; null or outlives them.
  explicit CallGate(int64_t max_in_flight_bytes, CallObserver* observer = nullptr)
      : max_in_flight_bytes_(max_in_flight_bytes), observer_(observer) {}

  CallObserver* observer() const { return observer_; }

  // One call in work, or a share of the bytes; given back by the last copy's end, on any thread.
  using Pass = std::shared_ptr<const void>;

  // Lets a call in. UNAVAILABLE (DRAINING) after StartDraining.
  absl::StatusOr<Pass> Enter() ABSL_LOCKS_EXCLUDED(mutex_);

  // Takes `size_bytes` of what may be in work at once. RESOURCE_EXHAUSTED (LIMIT_REACHED).
  absl::StatusOr<Pass> TakeBytes(int64_t size_bytes) ABSL_LOCKS_EXCLUDED(mutex_);

  // From now on no call is let in.
  void StartDraining() ABSL_LOCKS_EXCLUDED(mutex_);

  // Waits until no call is in work; false if `timeout` passed first.
  bool WaitForCalls(absl::Duration timeout) ABSL_LOCKS_EXCLUDED(mutex_);

  // Waits until no bytes are in work, those included that the transport has yet to send.
  bool WaitForBytes(absl::Duration timeout) ABSL_LOCKS_EXCLUDED(mutex_);

  bool is_draining() const ABSL_LOCKS_EXCLUDED(mutex_);
  int64_t num_calls() const ABSL_LOCKS_EXCLUDED(mutex_);
  int64_t num_bytes() const ABSL_LOCKS_EXCLUDED(mutex_);
  int64_t max_in_flight_bytes() const { return max_in_flight_bytes_; }

 private:
  // Constant.
  const int64_t max_in_flight_bytes_;
  CallObserver* const observer_;

  mutable absl::Mutex mutex_;
  bool is_draining_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t num_calls_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t num_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace normserve
