// Command buffers, each with the descriptor sets of its dispatches, used again and again.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "kernels/vulkan/device.h"

namespace normserve::vulkan {

class CommandPool;

// One command buffer and what it needs. Used by one thread at a time; reset when it is taken again.
class CommandSlot {
 public:
  static absl::StatusOr<std::unique_ptr<CommandSlot>> Create(Device& device);
  ~CommandSlot();
  CommandSlot(const CommandSlot&) = delete;
  CommandSlot& operator=(const CommandSlot&) = delete;

  VkCommandBuffer handle() const { return command_buffer_; }

  // Forgets what was recorded; the device must have done with it.
  absl::Status Reset();

  // A descriptor set of `layout`, which has `num_storage_buffers` bindings; valid until Reset.
  absl::StatusOr<VkDescriptorSet> AllocateSet(VkDescriptorSetLayout layout, uint32_t num_storage_buffers);

 private:
  struct SetPool {
    VkDescriptorPool pool;
    uint32_t num_descriptors;
    uint32_t sets_left;
    uint32_t descriptors_left;
  };
  explicit CommandSlot(Device& device) : device_(device) {}
  absl::Status AddSetPool(uint32_t num_descriptors);

  Device& device_;
  VkCommandPool command_pool_ = VK_NULL_HANDLE;
  VkCommandBuffer command_buffer_ = VK_NULL_HANDLE;
  std::vector<SetPool> set_pools_;
  size_t current_set_pool_ = 0;
};

// Goes back to the pool on destruction.
struct CommandSlotReturn {
  CommandPool* pool = nullptr;
  void operator()(CommandSlot* slot) const;
};
using PooledCommandSlot = std::unique_ptr<CommandSlot, CommandSlotReturn>;

// Thread-safe. The device outlives the pool; the pool outlives its slots.
class CommandPool {
 public:
  explicit CommandPool(Device& device) : device_(device) {}
  // Every slot has come back.
  ~CommandPool();
  CommandPool(const CommandPool&) = delete;
  CommandPool& operator=(const CommandPool&) = delete;

  // An empty slot: one that came back, or a new one.
  absl::StatusOr<PooledCommandSlot> Acquire();

  // Slots made so far.
  size_t size() const;

 private:
  friend struct CommandSlotReturn;
  void Release(CommandSlot* slot);

  Device& device_;
  mutable absl::Mutex mu_;
  std::vector<std::unique_ptr<CommandSlot>> idle_ ABSL_GUARDED_BY(mu_);
  size_t num_slots_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace normserve::vulkan
