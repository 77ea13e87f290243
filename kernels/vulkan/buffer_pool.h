// Device memory that is allocated once and lent again and again.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "kernels/vulkan/buffer.h"
#include "kernels/vulkan/device.h"

namespace normserve::vulkan {

class BufferSlab;

struct BufferPoolOptions {
  // Most bytes held from the device, lent and idle together. 0: three quarters of the heap of device buffers.
  uint64_t max_total_bytes = 0;
  // Idle bytes beyond this are given back to the device, longest unused first. A slab of small blocks is given back
  // only when all of them are idle, so a little more may stay.
  uint64_t max_idle_bytes = uint64_t{1} << 30;
  // Fills a block with 0xFF when it is lent and when it comes back, so that reading a buffer too early or too late
  // shows (as NaN, in floats). For tests; reaches only memory that the host can map.
  bool poison = false;
};

// A state of the pool, in one moment.
struct BufferPoolCounters {
  uint64_t device_allocations = 0;  // calls of vkAllocateMemory that succeeded, ever
  uint64_t in_use_bytes = 0;        // in blocks lent
  uint64_t idle_bytes = 0;          // in blocks waiting
  uint64_t buffers_in_use = 0;
};

// Blocks come in size classes (size_class.h); small ones share a slab of memory. In steady state Acquire makes no call
// of Vulkan but one that reads the timeline.
//
// A block whose last recorded use has not completed must never be lent: that is a broken invariant and ends the
// process.
//
// Thread-safe. The device outlives the pool; the pool outlives its buffers.
class BufferPool {
 public:
  static absl::StatusOr<std::unique_ptr<BufferPool>> Create(Device& device, const BufferPoolOptions& options = {});
  // Every buffer has come back, and the device has done with them.
  ~BufferPool();
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;

  // A buffer of `size_bytes` >= 1 with arbitrary contents.
  //
  // RESOURCE_EXHAUSTED (DEVICE_MEMORY): more than one allocation may hold, max_total_bytes would be exceeded, or the
  // device has no more; nothing is kept back then. UNAVAILABLE (DEVICE_LOST).
  absl::StatusOr<std::shared_ptr<Buffer>> Acquire(uint64_t size_bytes, BufferUsage usage);

  BufferPoolCounters counters() const;

  // Gives every wholly idle slab back to the device.
  void Trim();

 private:
  friend class Buffer;
  using SlabList = std::vector<std::unique_ptr<BufferSlab>>;
  using ClassKey = std::pair<BufferUsage, uint64_t>;

  BufferPool(Device& device, const BufferPoolOptions& options, uint64_t max_total_bytes);

  // The class to serve `size_bytes` from; no larger than one allocation may be.
  uint64_t ClassBytes(uint64_t size_bytes) const;
  PooledBlock* TakeIdleBlock(const ClassKey& key) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Adds a slab of the class and takes its first block. Gives idle slabs back where that makes room.
  absl::StatusOr<PooledBlock*> TakeNewBlock(const ClassKey& key);
  // Sets `bytes` of max_total_bytes_ aside, giving idle slabs back where that makes room.
  absl::Status Reserve(uint64_t bytes);
  void Release(PooledBlock* block);
  // Takes wholly idle slabs out of the pool, longest idle first, until at most `idle_bytes` are idle and
  // `total_bytes` held. The caller drops them without the lock.
  SlabList TakeIdleSlabs(uint64_t idle_bytes, uint64_t total_bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Drops slabs that TakeIdleSlabs gave.
  void Free(SlabList slabs) const;
  // OK if the device has done with `block`; ends the process if it has not; UNAVAILABLE if it is lost.
  absl::Status CheckReusable(const PooledBlock& block) const;
  void Poison(const PooledBlock& block) const;

  Device& device_;
  const BufferPoolOptions options_;
  const uint64_t max_total_bytes_;

  mutable absl::Mutex mu_;
  SlabList slabs_ ABSL_GUARDED_BY(mu_);
  // Idle blocks per class, the last returned, and so the warmest, at the back.
  std::map<ClassKey, std::vector<PooledBlock*>> idle_ ABSL_GUARDED_BY(mu_);
  // Held from the device, with what is being allocated at the moment.
  uint64_t total_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t clock_ ABSL_GUARDED_BY(mu_) = 0;  // releases so far
  BufferPoolCounters counters_ ABSL_GUARDED_BY(mu_);
};

}  // namespace normserve::vulkan
