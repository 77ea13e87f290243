// Bytes of state that all sessions together may hold.
#pragma once

#include <atomic>
#include <cstdint>

namespace normserve {

// Thread-safe.
class StateBudget {
 public:
  explicit StateBudget(int64_t max_bytes) : max_bytes_(max_bytes) {}

  // Takes `size_bytes`, or nothing and returns false where they are not there.
  bool TryTake(int64_t size_bytes) {
    int64_t taken = bytes_.load(std::memory_order_relaxed);
    do {
      if (size_bytes > max_bytes_ - taken) return false;
    } while (!bytes_.compare_exchange_weak(taken, taken + size_bytes, std::memory_order_relaxed));
    return true;
  }
  // Takes what is there already, such as sessions in a store, whatever the limit.
  void Take(int64_t size_bytes) { bytes_.fetch_add(size_bytes, std::memory_order_relaxed); }
  void Give(int64_t size_bytes) { bytes_.fetch_sub(size_bytes, std::memory_order_relaxed); }

  int64_t bytes() const { return bytes_.load(std::memory_order_relaxed); }
  int64_t max_bytes() const { return max_bytes_; }

 private:
  const int64_t max_bytes_;
  std::atomic<int64_t> bytes_ = 0;
};

}  // namespace normserve
