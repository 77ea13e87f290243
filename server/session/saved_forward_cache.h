// Inputs of Forwards, kept on the device until their gradients are asked for.
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "kernels/engine.h"

namespace normserve {

// What a Backward needs to know of its Forward. Copies share everything large.
struct SavedForward {
  std::string session_uid;
  std::shared_ptr<const KeptInput> input;
  // Type, layout and dimensions of the input as it was sent.
  ElementType type = ElementType::kFloat32;
  Layout layout = Layout::kChannelsFirst;
  std::vector<int64_t> dimensions;
  // [C]: what the Forward normalised with, its gamma, and whether they were the batch's own.
  std::shared_ptr<const NormalizationStatistics> normalization;
  std::shared_ptr<const AffineParameters> parameters;
  bool from_batch = true;
};

// A cache: bounded in bytes and time, least recently used first to go. Nothing is lost with an entry that a client
// cannot send again. Thread-safe. Destroyed before the engine whose memory it holds.
class SavedForwardCache {
 public:
  using Clock = std::function<absl::Time()>;

  // An entry goes `max_age` after its last use, or `kReleasedAge` after it was released.
  explicit SavedForwardCache(int64_t max_bytes, absl::Duration max_age = absl::Minutes(10), Clock clock = absl::Now)
      : max_bytes_(max_bytes), max_age_(max_age), clock_(std::move(clock)) {}

  // Long enough that a retry of the call that released it still works.
  static constexpr absl::Duration kReleasedAge = absl::Seconds(30);

  // Keeps `saved` and returns its token, 32 random hexadecimal digits; drops others to make room. Empty, and nothing is
  // kept, if it is larger than all there is.
  std::string Keep(SavedForward saved) ABSL_LOCKS_EXCLUDED(mutex_);

  // FAILED_PRECONDITION (TOKEN_DROPPED): not here any more, or never was, or of another session than `session_uid`.
  absl::StatusOr<SavedForward> Find(const std::string& token, const std::string& session_uid)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // The entry is not needed any more. Does nothing if it is gone.
  void Release(const std::string& token) ABSL_LOCKS_EXCLUDED(mutex_);

  // Drops all: the device has no memory left for calls.
  void Clear() ABSL_LOCKS_EXCLUDED(mutex_);

  int64_t max_bytes() const { return max_bytes_; }
  int64_t size_bytes() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Entry {
    std::string token;
    SavedForward saved;
    absl::Time expires;
    bool released = false;
  };
  using Entries = std::list<Entry>;

  // Moves what is too old, or too much beside `room` bytes, to `dropped`, which the caller destroys without the lock.
  void DropTo(int64_t room, Entries& dropped) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Drop(Entries::iterator entry, Entries& dropped) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const int64_t max_bytes_;
  const absl::Duration max_age_;
  const Clock clock_;

  mutable absl::Mutex mutex_;
  Entries entries_ ABSL_GUARDED_BY(mutex_);  // most recently used first
  std::unordered_map<std::string, Entries::iterator> by_token_ ABSL_GUARDED_BY(mutex_);
  int64_t size_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace normserve
