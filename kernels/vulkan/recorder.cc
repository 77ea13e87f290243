#include "kernels/vulkan/recorder.h"

#include <algorithm>
#include <utility>

#include "kernels/check.h"
#include "kernels/vulkan/result.h"

namespace normserve::vulkan {
namespace {

constexpr VkPipelineStageFlags kDeviceStages = VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT;
constexpr VkAccessFlags kDeviceWrites = VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT;

}  // namespace

void Recording::RecordUse(uint64_t timeline_value) const {
  for (const std::shared_ptr<Buffer>& buffer : buffers_) buffer->RecordUse(timeline_value);
}

absl::StatusOr<CommandRecorder> CommandRecorder::Begin(Device& device, CommandPool& commands) {
  if (device.lost()) return DeviceLostError(device.limits().name);
  auto slot = commands.Acquire();
  if (!slot.ok()) return slot.status();
  VkCommandBufferBeginInfo begin = {VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
  begin.flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT;
  const VkResult result = device.vk().vkBeginCommandBuffer((*slot)->handle(), &begin);
  if (result != VK_SUCCESS) return ResultStatus(result, "vkBeginCommandBuffer");
  return CommandRecorder(device, *std::move(slot));
}

void CommandRecorder::Dispatch(const ComputePipeline& pipeline, absl::Span<const BufferBinding> bindings,
                               absl::Span<const std::byte> push_constants, std::array<uint32_t, 3> groups) {
  NORMSERVE_CHECK(bindings.size() == pipeline.num_storage_buffers());
  NORMSERVE_CHECK(push_constants.size() == pipeline.push_constant_bytes());
  for (size_t i = 0; i < groups.size(); ++i) {
    NORMSERVE_CHECK(groups[i] >= 1 && groups[i] <= device_->limits().max_workgroup_count[i]);
  }
  if (!status_.ok()) return;
  const VolkDeviceTable& vk = device_->vk();
  const VkCommandBuffer commands = slot_->handle();
  vk.vkCmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_COMPUTE, pipeline.handle());
  BindBuffers(pipeline, bindings);
  if (!status_.ok()) return;
  if (!push_constants.empty()) {
    vk.vkCmdPushConstants(commands, pipeline.layout(), VK_SHADER_STAGE_COMPUTE_BIT, 0,
                          static_cast<uint32_t>(push_constants.size()), push_constants.data());
  }
  vk.vkCmdDispatch(commands, groups[0], groups[1], groups[2]);
}

void CommandRecorder::BindBuffers(const ComputePipeline& pipeline, absl::Span<const BufferBinding> bindings) {
  if (bindings.empty()) return;
  const DeviceLimits& limits = device_->limits();
  const size_t count = bindings.size();
  infos_.assign(count, {});
  writes_.assign(count, {VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET});
  for (size_t i = 0; i < count; ++i) {
    const BufferBinding& binding = bindings[i];
    const uint64_t size = binding.buffer->size_bytes();
    NORMSERVE_CHECK(binding.offset < size && binding.range <= size - binding.offset);
    NORMSERVE_CHECK(binding.offset % limits.min_storage_buffer_offset_alignment == 0);
    const uint64_t range = binding.range == 0 ? size - binding.offset : binding.range;
    NORMSERVE_CHECK(range <= limits.max_storage_buffer_range);
    infos_[i] = {binding.buffer->handle(), binding.offset, range};
    writes_[i].dstBinding = static_cast<uint32_t>(i);
    writes_[i].descriptorCount = 1;
    writes_[i].descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER;
    writes_[i].pBufferInfo = &infos_[i];
    Keep(binding.buffer);
  }

  const VolkDeviceTable& vk = device_->vk();
  if (device_->push_descriptors()) {
    vk.vkCmdPushDescriptorSetKHR(slot_->handle(), VK_PIPELINE_BIND_POINT_COMPUTE, pipeline.layout(), 0,
                                 static_cast<uint32_t>(count), writes_.data());
    return;
  }
  auto set = slot_->AllocateSet(pipeline.set_layout(), pipeline.num_storage_buffers());
  if (!set.ok()) {
    status_ = set.status();
    return;
  }
  for (VkWriteDescriptorSet& write : writes_) write.dstSet = *set;
  vk.vkUpdateDescriptorSets(device_->handle(), static_cast<uint32_t>(count), writes_.data(), 0, nullptr);
  vk.vkCmdBindDescriptorSets(slot_->handle(), VK_PIPELINE_BIND_POINT_COMPUTE, pipeline.layout(), 0, 1, &*set, 0,
                             nullptr);
}

void CommandRecorder::CopyBuffer(const std::shared_ptr<Buffer>& source, uint64_t source_offset,
                                 const std::shared_ptr<Buffer>& destination, uint64_t destination_offset,
                                 uint64_t size) {
  NORMSERVE_CHECK(size >= 1);
  NORMSERVE_CHECK(source_offset <= source->size_bytes() && size <= source->size_bytes() - source_offset);
  NORMSERVE_CHECK(destination_offset <= destination->size_bytes() &&
                  size <= destination->size_bytes() - destination_offset);
  Keep(source);
  Keep(destination);
  const VkBufferCopy region = {source_offset, destination_offset, size};
  device_->vk().vkCmdCopyBuffer(slot_->handle(), source->handle(), destination->handle(), 1, &region);
}

void CommandRecorder::Barrier() {
  VkMemoryBarrier barrier = {VK_STRUCTURE_TYPE_MEMORY_BARRIER};
  barrier.srcAccessMask = kDeviceWrites;
  barrier.dstAccessMask = kDeviceWrites | VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_TRANSFER_READ_BIT;
  device_->vk().vkCmdPipelineBarrier(slot_->handle(), kDeviceStages, kDeviceStages, 0, 1, &barrier, 0, nullptr, 0,
                                     nullptr);
}

void CommandRecorder::Keep(const std::shared_ptr<Buffer>& buffer) {
  // A job uses few buffers, if often.
  if (std::find(buffers_.begin(), buffers_.end(), buffer) == buffers_.end()) buffers_.push_back(buffer);
}

absl::StatusOr<Recording> CommandRecorder::Finish() && {
  VkMemoryBarrier barrier = {VK_STRUCTURE_TYPE_MEMORY_BARRIER};
  barrier.srcAccessMask = kDeviceWrites;
  barrier.dstAccessMask = VK_ACCESS_HOST_READ_BIT;
  device_->vk().vkCmdPipelineBarrier(slot_->handle(), kDeviceStages, VK_PIPELINE_STAGE_HOST_BIT, 0, 1, &barrier, 0,
                                     nullptr, 0, nullptr);
  const VkResult result = device_->vk().vkEndCommandBuffer(slot_->handle());
  if (!status_.ok()) return status_;
  if (result != VK_SUCCESS) return ResultStatus(result, "vkEndCommandBuffer");
  return Recording(std::move(slot_), std::move(buffers_));
}

}  // namespace normserve::vulkan
