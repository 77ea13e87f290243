// One allocation of device memory, cut into equal blocks with a VkBuffer each. Inside this folder only.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/vulkan/device.h"
#include "kernels/vulkan/memory_type.h"
#include "kernels/vulkan/vulkan_api.h"

namespace normserve::vulkan {

class BufferSlab;

struct PooledBlock {
  BufferSlab* slab = nullptr;
  VkBuffer buffer = VK_NULL_HANDLE;
  uint64_t offset = 0;  // in the slab's memory
  // The timeline value that work using the block raises when it completes; 0: never used.
  std::atomic<uint64_t> last_use = 0;
};

// The pool's bookkeeping is guarded by the pool's mutex; the rest is constant after construction.
class BufferSlab {
 public:
  // RESOURCE_EXHAUSTED (DEVICE_MEMORY) if the device has no more; nothing is kept back then.
  static absl::StatusOr<std::unique_ptr<BufferSlab>> Create(Device& device, uint64_t class_bytes, uint64_t num_blocks,
                                                            BufferUsage usage);
  // The device has done with every block.
  ~BufferSlab();
  BufferSlab(const BufferSlab&) = delete;
  BufferSlab& operator=(const BufferSlab&) = delete;

  // Bytes taken from the device.
  uint64_t size_bytes() const { return size_bytes_; }
  uint64_t class_bytes() const { return class_bytes_; }
  BufferUsage usage() const { return usage_; }
  std::vector<PooledBlock>& blocks() { return blocks_; }

  // The block in host memory; null if the host cannot map it.
  std::byte* HostAddress(const PooledBlock& block) const {
    return host_address_ == nullptr ? nullptr : host_address_ + block.offset;
  }
  // The same, as users of the pool may see it: null also where the device mask takes the mapping away.
  std::byte* VisibleAddress(const PooledBlock& block) const { return visible_ ? HostAddress(block) : nullptr; }

  // Non-coherent memory only: passes [offset, offset + size) of the block between host and device.
  absl::Status Flush(const PooledBlock& block, uint64_t offset, uint64_t size) const;
  absl::Status Invalidate(const PooledBlock& block, uint64_t offset, uint64_t size) const;

  // For the pool.
  uint64_t num_in_use = 0;
  uint64_t idle_since = 0;  // of the pool's clock, when the last block came back

 private:
  BufferSlab(Device& device, uint64_t class_bytes, uint64_t num_blocks, BufferUsage usage)
      : device_(device), class_bytes_(class_bytes), usage_(usage), blocks_(num_blocks) {}
  VkMappedMemoryRange Range(const PooledBlock& block, uint64_t offset, uint64_t size) const;

  Device& device_;
  const uint64_t class_bytes_;
  const BufferUsage usage_;
  uint64_t stride_ = 0;
  uint64_t size_bytes_ = 0;
  VkDeviceMemory memory_ = VK_NULL_HANDLE;
  std::byte* host_address_ = nullptr;
  bool visible_ = false;
  bool coherent_ = true;
  std::vector<PooledBlock> blocks_;
};

}  // namespace normserve::vulkan
