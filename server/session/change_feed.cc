#include "server/session/change_feed.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"

namespace normserve {

void ChangeFeed::NoteHeard(const std::string& name) {
  absl::MutexLock lock(&mutex_);
  if (names_.contains(name)) return;
  names_.insert(name);
  if (std::exchange(is_waiting_, false)) is_due_.Signal();
}

void ChangeFeed::Listen(bool is_listening) {
  // Before names are cleared: one noted in between is one too many, which is no harm.
  is_listening_.store(is_listening, std::memory_order_seq_cst);
  if (is_listening) return;
  absl::MutexLock lock(&mutex_);
  names_.clear();
}

std::set<std::string> ChangeFeed::Take(absl::Time quiet_until, absl::Time deadline) {
  absl::MutexLock lock(&mutex_);
  quiet_until = std::min(quiet_until, deadline);
  while (!is_woken_ && absl::Now() < quiet_until) is_due_.WaitWithDeadline(&mutex_, quiet_until);
  while (!is_woken_ && names_.empty() && absl::Now() < deadline) {
    is_waiting_ = true;
    is_due_.WaitWithDeadline(&mutex_, deadline);
  }
  is_waiting_ = is_woken_ = false;
  return std::exchange(names_, {});
}

void ChangeFeed::Wake() {
  absl::MutexLock lock(&mutex_);
  is_woken_ = true;
  is_due_.Signal();
}

}  // namespace normserve
