// Bytes that all sessions together may keep for repeated requests, beyond what each may always keep.
#pragma once

#include <atomic>
#include <cstdint>

namespace normserve {

// Counts only; who sees it exceeded gives back of its own. Thread-safe.
class VectorBudget {
 public:
  explicit VectorBudget(int64_t max_bytes) : max_bytes_(max_bytes) {}

  void Take(int64_t size_bytes) { bytes_.fetch_add(size_bytes, std::memory_order_relaxed); }
  void Give(int64_t size_bytes) { bytes_.fetch_sub(size_bytes, std::memory_order_relaxed); }
  bool IsExceeded() const { return bytes() > max_bytes_; }
  int64_t bytes() const { return bytes_.load(std::memory_order_relaxed); }

 private:
  const int64_t max_bytes_;
  std::atomic<int64_t> bytes_ = 0;
};

}  // namespace normserve
