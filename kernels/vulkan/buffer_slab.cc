#include "kernels/vulkan/buffer_slab.h"

#include <algorithm>
#include <optional>

#include "absl/strings/str_cat.h"
#include "kernels/vulkan/result.h"

namespace normserve::vulkan {
namespace {

uint64_t RoundUp(uint64_t value, uint64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

}  // namespace

absl::StatusOr<std::unique_ptr<BufferSlab>> BufferSlab::Create(Device& device, uint64_t class_bytes,
                                                               uint64_t num_blocks, BufferUsage usage) {
  const VolkDeviceTable& vk = device.vk();
  std::unique_ptr<BufferSlab> self(new BufferSlab(device, class_bytes, num_blocks, usage));

  VkBufferCreateInfo create = {VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO};
  create.size = class_bytes;
  create.usage =
      VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT;
  create.sharingMode = VK_SHARING_MODE_EXCLUSIVE;
  VkMemoryRequirements needs = {};
  for (PooledBlock& block : self->blocks_) {
    block.slab = self.get();
    const VkResult result = vk.vkCreateBuffer(device.handle(), &create, nullptr, &block.buffer);
    if (result != VK_SUCCESS) {
      block.buffer = VK_NULL_HANDLE;
      return ResultStatus(result, absl::StrCat("vkCreateBuffer of ", class_bytes, " bytes"));
    }
    // The same for buffers made alike; the layer wants every buffer asked.
    vk.vkGetBufferMemoryRequirements(device.handle(), block.buffer, &needs);
  }

  const std::optional<MemoryTypeChoice> type = ChooseMemoryType(device.memory(), needs.memoryTypeBits, usage);
  if (!type.has_value()) return absl::InternalError("the device has no memory type for a storage buffer");
  self->coherent_ = type->coherent;
  self->visible_ =
      type->host_visible && !(usage == BufferUsage::kDevice && device.mask().no_host_visible_device_memory);
  self->stride_ = RoundUp(needs.size, std::max<uint64_t>(needs.alignment, device.non_coherent_atom_size()));
  self->size_bytes_ = self->stride_ * num_blocks;

  VkMemoryAllocateInfo allocate = {VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO};
  allocate.allocationSize = self->size_bytes_;
  allocate.memoryTypeIndex = type->index;
  VkResult result = vk.vkAllocateMemory(device.handle(), &allocate, nullptr, &self->memory_);
  if (result != VK_SUCCESS) {
    self->memory_ = VK_NULL_HANDLE;
    return ResultStatus(result, absl::StrCat("vkAllocateMemory of ", self->size_bytes_, " bytes"));
  }
  for (size_t i = 0; i < self->blocks_.size(); ++i) {
    PooledBlock& block = self->blocks_[i];
    block.offset = i * self->stride_;
    result = vk.vkBindBufferMemory(device.handle(), block.buffer, self->memory_, block.offset);
    if (result != VK_SUCCESS) return ResultStatus(result, "vkBindBufferMemory");
  }
  if (type->host_visible) {
    void* address = nullptr;
    result = vk.vkMapMemory(device.handle(), self->memory_, 0, VK_WHOLE_SIZE, 0, &address);
    if (result != VK_SUCCESS) return ResultStatus(result, "vkMapMemory");
    self->host_address_ = static_cast<std::byte*>(address);
  }
  return self;
}

BufferSlab::~BufferSlab() {
  const VolkDeviceTable& vk = device_.vk();
  for (const PooledBlock& block : blocks_) {
    if (block.buffer != VK_NULL_HANDLE) vk.vkDestroyBuffer(device_.handle(), block.buffer, nullptr);
  }
  // Also unmaps.
  if (memory_ != VK_NULL_HANDLE) vk.vkFreeMemory(device_.handle(), memory_, nullptr);
}

// Widened to whole atoms; never into another block, for their stride is a multiple of the atom.
VkMappedMemoryRange BufferSlab::Range(const PooledBlock& block, uint64_t offset, uint64_t size) const {
  const uint64_t atom = device_.non_coherent_atom_size();
  const uint64_t begin = offset / atom * atom;
  const uint64_t end = std::min(RoundUp(offset + size, atom), stride_);
  VkMappedMemoryRange range = {VK_STRUCTURE_TYPE_MAPPED_MEMORY_RANGE};
  range.memory = memory_;
  range.offset = block.offset + begin;
  range.size = end - begin;
  return range;
}

absl::Status BufferSlab::Flush(const PooledBlock& block, uint64_t offset, uint64_t size) const {
  if (coherent_ || size == 0) return absl::OkStatus();
  const VkMappedMemoryRange range = Range(block, offset, size);
  return ResultStatus(device_.vk().vkFlushMappedMemoryRanges(device_.handle(), 1, &range), "vkFlushMappedMemoryRanges");
}

absl::Status BufferSlab::Invalidate(const PooledBlock& block, uint64_t offset, uint64_t size) const {
  if (coherent_ || size == 0) return absl::OkStatus();
  const VkMappedMemoryRange range = Range(block, offset, size);
  return ResultStatus(device_.vk().vkInvalidateMappedMemoryRanges(device_.handle(), 1, &range),
                      "vkInvalidateMappedMemoryRanges");
}

}  // namespace normserve::vulkan
