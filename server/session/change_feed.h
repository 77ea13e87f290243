// Which sessions have changed, for those who watch them.
#pragma once

#include <atomic>
#include <set>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace normserve {

// Names are noted by whoever changes a session and taken, each once, by one thread that tells the watchers. Who notes
// never waits and wakes nobody who has asked for quiet, so that training costs the same however many watch.
//
// Thread-safe.
class ChangeFeed {
 public:
  // Notes that `name` shows something else than before, is there now or is gone. Under any lock. With nobody listening
  // this reads one number.
  void Note(const std::string& name) ABSL_LOCKS_EXCLUDED(mutex_) {
    if (is_listening_.load(std::memory_order_relaxed)) NoteHeard(name);
  }

  // Whether names are kept. What was noted while they were not is not known later: who begins to watch reads after
  // this.
  void Listen(bool is_listening) ABSL_LOCKS_EXCLUDED(mutex_);

  // What was noted since the last call. Waits until `quiet_until` whatever is noted, then until something is, and no
  // longer than `deadline`; Wake ends it at once.
  std::set<std::string> Take(absl::Time quiet_until, absl::Time deadline) ABSL_LOCKS_EXCLUDED(mutex_);

  // Ends the Take under way, or the next one.
  void Wake() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  void NoteHeard(const std::string& name) ABSL_LOCKS_EXCLUDED(mutex_);

  std::atomic<bool> is_listening_ = false;

  absl::Mutex mutex_;  // no other is taken under it
  absl::CondVar is_due_;
  std::set<std::string> names_ ABSL_GUARDED_BY(mutex_);
  bool is_waiting_ ABSL_GUARDED_BY(mutex_) = false;  // for a name
  bool is_woken_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace normserve
