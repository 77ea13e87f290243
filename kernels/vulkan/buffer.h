// A buffer lent by the pool.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "kernels/vulkan/memory_type.h"
#include "kernels/vulkan/vulkan_api.h"

namespace normserve::vulkan {

class BufferPool;
struct PooledBlock;

// Goes back to its pool when the last reference is dropped, which may happen on any thread. A recording keeps its
// buffers until the device has done with them, so dropping one early is safe. The host's reads and writes of mapped()
// and the device's are kept apart by the caller.
class Buffer {
 public:
  ~Buffer();
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  VkBuffer handle() const;
  BufferUsage usage() const;
  // What was asked for. The block behind it may be larger.
  uint64_t size_bytes() const { return size_bytes_; }
  // First byte in host memory; null if the host cannot see the buffer. The contents of a fresh buffer are arbitrary.
  std::byte* mapped() const;

  // Makes what the host wrote to [offset, offset + size) visible to work submitted later. Costs nothing on coherent
  // memory. Needs mapped().
  absl::Status Flush(uint64_t offset, uint64_t size) const;
  absl::Status Flush() const { return Flush(0, size_bytes_); }
  // Makes what completed work wrote to [offset, offset + size) visible to the host. Needs mapped().
  absl::Status Invalidate(uint64_t offset, uint64_t size) const;
  absl::Status Invalidate() const { return Invalidate(0, size_bytes_); }

  // Notes that work which completes with `timeline_value` uses the buffer. For the submitter.
  void RecordUse(uint64_t timeline_value) const;

 private:
  friend class BufferPool;
  Buffer(BufferPool* pool, PooledBlock* block, uint64_t size_bytes)
      : pool_(pool), block_(block), size_bytes_(size_bytes) {}

  BufferPool* const pool_;
  PooledBlock* const block_;
  const uint64_t size_bytes_;
};

}  // namespace normserve::vulkan
