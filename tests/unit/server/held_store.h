// A store that keeps its writes back while the test says so, and refuses those that the test refuses.
#pragma once

#include <deque>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "kernels/error_reason.h"
#include "server/store/state_store.h"

namespace normserve {

// Thread-safe. Over another store, which outlives it.
class HeldStore final : public StateStore {
 public:
  explicit HeldStore(StateStore& store) : store_(store) {}

  std::string location() const override { return store_.location(); }
  absl::StatusOr<std::vector<StoredHead>> ListSessions() override { return store_.ListSessions(); }
  absl::StatusOr<std::vector<StoredRequest>> ListServerRequests() override { return store_.ListServerRequests(); }
  absl::StatusOr<StoredSession> Load(absl::string_view uid) override { return store_.Load(uid); }
  absl::StatusOr<StoredMemory> LoadMemory(absl::string_view uid) override { return store_.LoadMemory(uid); }
  void Close() override { store_.Close(); }

  void Write(StoreWrite write, Stored stored) override {
    {
      absl::MutexLock lock(&mutex_);
      ++num_writes_;
      if (is_held_) return held_.emplace_back(std::move(write), std::move(stored)), void();
    }
    store_.Write(std::move(write), std::move(stored));
  }

  void Hold() {
    absl::MutexLock lock(&mutex_);
    is_held_ = true;
  }

  // Lets the oldest write held go on, and waits until it is answered.
  void PassOne() {
    auto [write, stored] = TakeOne();
    absl::Notification done;
    store_.Write(std::move(write), [&done, stored = std::move(stored)](absl::Status status) mutable {
      std::move(stored)(std::move(status));
      done.Notify();
    });
    done.WaitForNotification();
  }

  // As a store whose disk is full.
  void RefuseOne() {
    auto [write, stored] = TakeOne();
    std::move(stored)(MakeError(absl::StatusCode::kUnavailable, ErrorReason::kStoreRefused, "the disk is full"));
  }

  void PassAll() {
    while (num_held() > 0) PassOne();
    absl::MutexLock lock(&mutex_);
    is_held_ = false;
  }

  size_t num_held() const {
    absl::MutexLock lock(&mutex_);
    return held_.size();
  }
  int64_t num_writes() const {
    absl::MutexLock lock(&mutex_);
    return num_writes_;
  }

 private:
  std::pair<StoreWrite, Stored> TakeOne() {
    absl::MutexLock lock(&mutex_);
    auto one = std::move(held_.front());
    held_.pop_front();
    return one;
  }

  StateStore& store_;
  mutable absl::Mutex mutex_;
  bool is_held_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<std::pair<StoreWrite, Stored>> held_ ABSL_GUARDED_BY(mutex_);
  int64_t num_writes_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace normserve
