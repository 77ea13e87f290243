#include "server/rpc/call_gate.h"

#include "absl/strings/str_cat.h"
#include "kernels/error_reason.h"

namespace normserve {

absl::StatusOr<CallGate::Pass> CallGate::Enter() {
  absl::MutexLock lock(&mutex_);
  if (is_draining_) {
    return MakeError(absl::StatusCode::kUnavailable, ErrorReason::kDraining,
                     "the server is draining and takes no new calls: repeat elsewhere or later");
  }
  ++num_calls_;
  return Pass(this, [self = shared_from_this()](const void*) {
    absl::MutexLock lock(&self->mutex_);
    --self->num_calls_;
  });
}

absl::StatusOr<CallGate::Pass> CallGate::TakeBytes(int64_t size_bytes) {
  absl::MutexLock lock(&mutex_);
  if (size_bytes > max_in_flight_bytes_ - num_bytes_) {
    return MakeError(absl::StatusCode::kResourceExhausted, ErrorReason::kLimitReached,
                     absl::StrCat("max_in_flight_bytes is ", max_in_flight_bytes_, ", ", num_bytes_,
                                  " are in work and this request has ", size_bytes, ": send it again later"),
                     {{"limit", "max_in_flight_bytes"}});
  }
  num_bytes_ += size_bytes;
  return Pass(this, [self = shared_from_this(), size_bytes](const void*) {
    absl::MutexLock lock(&self->mutex_);
    self->num_bytes_ -= size_bytes;
  });
}

void CallGate::StartDraining() {
  absl::MutexLock lock(&mutex_);
  is_draining_ = true;
}

bool CallGate::WaitForCalls(absl::Duration timeout) {
  absl::MutexLock lock(&mutex_);
  const auto none = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return num_calls_ == 0; };
  return mutex_.AwaitWithTimeout(absl::Condition(&none), timeout);
}

bool CallGate::WaitForBytes(absl::Duration timeout) {
  absl::MutexLock lock(&mutex_);
  const auto none = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return num_bytes_ == 0; };
  return mutex_.AwaitWithTimeout(absl::Condition(&none), timeout);
}

bool CallGate::is_draining() const {
  absl::MutexLock lock(&mutex_);
  return is_draining_;
}

int64_t CallGate::num_calls() const {
  absl::MutexLock lock(&mutex_);
  return num_calls_;
}

int64_t CallGate::num_bytes() const {
  absl::MutexLock lock(&mutex_);
  return num_bytes_;
}

}  // namespace normserve
