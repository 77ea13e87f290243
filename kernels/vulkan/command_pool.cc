#include "kernels/vulkan/command_pool.h"

#include <algorithm>
#include <utility>

#include "kernels/check.h"
#include "kernels/vulkan/result.h"

namespace normserve::vulkan {
namespace {

constexpr uint32_t kSetsPerPool = 64;
constexpr uint32_t kDescriptorsPerPool = 512;

}  // namespace

absl::StatusOr<std::unique_ptr<CommandSlot>> CommandSlot::Create(Device& device) {
  const VolkDeviceTable& vk = device.vk();
  std::unique_ptr<CommandSlot> self(new CommandSlot(device));
  VkCommandPoolCreateInfo create = {VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO};
  create.flags = VK_COMMAND_POOL_CREATE_TRANSIENT_BIT;
  create.queueFamilyIndex = device.queue_family();
  VkResult result = vk.vkCreateCommandPool(device.handle(), &create, nullptr, &self->command_pool_);
  if (result != VK_SUCCESS) return ResultStatus(result, "vkCreateCommandPool");
  VkCommandBufferAllocateInfo allocate = {VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO};
  allocate.commandPool = self->command_pool_;
  allocate.level = VK_COMMAND_BUFFER_LEVEL_PRIMARY;
  allocate.commandBufferCount = 1;
  result = vk.vkAllocateCommandBuffers(device.handle(), &allocate, &self->command_buffer_);
  if (result != VK_SUCCESS) return ResultStatus(result, "vkAllocateCommandBuffers");
  return self;
}

CommandSlot::~CommandSlot() {
  const VolkDeviceTable& vk = device_.vk();
  for (const SetPool& sets : set_pools_) vk.vkDestroyDescriptorPool(device_.handle(), sets.pool, nullptr);
  vk.vkDestroyCommandPool(device_.handle(), command_pool_, nullptr);
}

absl::Status CommandSlot::Reset() {
  const VolkDeviceTable& vk = device_.vk();
  VkResult result = vk.vkResetCommandPool(device_.handle(), command_pool_, 0);
  if (result != VK_SUCCESS) return ResultStatus(result, "vkResetCommandPool");
  for (SetPool& sets : set_pools_) {
    if (sets.sets_left == kSetsPerPool) continue;  // untouched
    result = vk.vkResetDescriptorPool(device_.handle(), sets.pool, 0);
    if (result != VK_SUCCESS) return ResultStatus(result, "vkResetDescriptorPool");
    sets.sets_left = kSetsPerPool;
    sets.descriptors_left = sets.num_descriptors;
  }
  current_set_pool_ = 0;
  return absl::OkStatus();
}

absl::StatusOr<VkDescriptorSet> CommandSlot::AllocateSet(VkDescriptorSetLayout layout, uint32_t num_storage_buffers) {
  while (current_set_pool_ < set_pools_.size() &&
         (set_pools_[current_set_pool_].sets_left == 0 ||
          set_pools_[current_set_pool_].descriptors_left < num_storage_buffers)) {
    ++current_set_pool_;
  }
  if (current_set_pool_ == set_pools_.size()) {
    absl::Status status = AddSetPool(std::max(kDescriptorsPerPool, num_storage_buffers));
    if (!status.ok()) return status;
  }
  SetPool& sets = set_pools_[current_set_pool_];
  VkDescriptorSetAllocateInfo allocate = {VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO};
  allocate.descriptorPool = sets.pool;
  allocate.descriptorSetCount = 1;
  allocate.pSetLayouts = &layout;
  VkDescriptorSet set = VK_NULL_HANDLE;
  const VkResult result = device_.vk().vkAllocateDescriptorSets(device_.handle(), &allocate, &set);
  if (result != VK_SUCCESS) return ResultStatus(result, "vkAllocateDescriptorSets");
  --sets.sets_left;
  sets.descriptors_left -= num_storage_buffers;
  return set;
}

absl::Status CommandSlot::AddSetPool(uint32_t num_descriptors) {
  const VkDescriptorPoolSize size = {VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, num_descriptors};
  VkDescriptorPoolCreateInfo create = {VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO};
  create.maxSets = kSetsPerPool;
  create.poolSizeCount = 1;
  create.pPoolSizes = &size;
  VkDescriptorPool pool = VK_NULL_HANDLE;
  const VkResult result = device_.vk().vkCreateDescriptorPool(device_.handle(), &create, nullptr, &pool);
  if (result != VK_SUCCESS) return ResultStatus(result, "vkCreateDescriptorPool");
  set_pools_.push_back({pool, num_descriptors, kSetsPerPool, num_descriptors});
  return absl::OkStatus();
}

void CommandSlotReturn::operator()(CommandSlot* slot) const { pool->Release(slot); }

CommandPool::~CommandPool() {
  absl::MutexLock lock(&mu_);
  NORMSERVE_CHECK(idle_.size() == num_slots_);
}

absl::StatusOr<PooledCommandSlot> CommandPool::Acquire() {
  std::unique_ptr<CommandSlot> slot;
  {
    absl::MutexLock lock(&mu_);
    if (!idle_.empty()) {
      slot = std::move(idle_.back());
      idle_.pop_back();
    }
  }
  if (slot == nullptr) {
    auto made = CommandSlot::Create(device_);
    if (!made.ok()) return made.status();
    slot = *std::move(made);
    absl::MutexLock lock(&mu_);
    ++num_slots_;
  }
  PooledCommandSlot pooled(slot.release(), CommandSlotReturn{this});
  absl::Status status = pooled->Reset();
  if (!status.ok()) return status;
  return pooled;
}

size_t CommandPool::size() const {
  absl::MutexLock lock(&mu_);
  return num_slots_;
}

void CommandPool::Release(CommandSlot* slot) {
  absl::MutexLock lock(&mu_);
  idle_.emplace_back(slot);
}

}  // namespace normserve::vulkan
