#include "kernels/vulkan/device.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/check.h"
#include "kernels/vulkan/memory_type.h"
#include "kernels/vulkan/physical_device.h"
#include "kernels/vulkan/result.h"

namespace normserve::vulkan {
namespace {

template <typename Number>
void Cap(Number& limit, const std::optional<Number>& mask) {
  if (mask.has_value()) limit = std::min(limit, *mask);
}

DeviceLimits ReadLimits(VkPhysicalDevice device, const DeviceSnapshot& snapshot,
                        const VkPhysicalDeviceMemoryProperties& memory) {
  VkPhysicalDeviceMaintenance4Properties buffers = {VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_4_PROPERTIES};
  VkPhysicalDevicePushDescriptorPropertiesKHR push = {VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PUSH_DESCRIPTOR_PROPERTIES_KHR};
  VkPhysicalDeviceSubgroupProperties subgroup = {VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_PROPERTIES};
  VkPhysicalDeviceMaintenance3Properties allocation = {VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_3_PROPERTIES};
  VkPhysicalDeviceProperties2 properties = {VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2};
  properties.pNext = &allocation;
  allocation.pNext = &subgroup;
  const bool has_buffer_size = HasExtension(device, VK_KHR_MAINTENANCE_4_EXTENSION_NAME);
  if (snapshot.push_descriptor) subgroup.pNext = &push;
  if (has_buffer_size) {
    buffers.pNext = subgroup.pNext;
    subgroup.pNext = &buffers;
  }
  vkGetPhysicalDeviceProperties2(device, &properties);

  const VkPhysicalDeviceLimits& from = properties.properties.limits;
  DeviceLimits limits;
  limits.name = snapshot.name;
  limits.is_cpu = snapshot.type == DeviceType::kCpu;
  limits.max_storage_buffer_range = from.maxStorageBufferRange;
  limits.min_storage_buffer_offset_alignment = std::max<uint64_t>(from.minStorageBufferOffsetAlignment, 4);
  limits.max_storage_buffers = std::min(
      {from.maxPerStageDescriptorStorageBuffers, from.maxDescriptorSetStorageBuffers, from.maxPerStageResources});
  if (snapshot.push_descriptor)
    limits.max_storage_buffers = std::min(limits.max_storage_buffers, push.maxPushDescriptors);
  limits.max_push_constants_bytes = from.maxPushConstantsSize;
  limits.max_workgroup_invocations = from.maxComputeWorkGroupInvocations;
  limits.max_workgroup_size_x = from.maxComputeWorkGroupSize[0];
  for (size_t i = 0; i < 3; ++i) limits.max_workgroup_count[i] = from.maxComputeWorkGroupCount[i];
  limits.max_shared_memory_bytes = from.maxComputeSharedMemorySize;
  limits.subgroup_size = subgroup.subgroupSize;
  limits.max_allocation_size = allocation.maxMemoryAllocationSize;
  if (has_buffer_size) limits.max_allocation_size = std::min(limits.max_allocation_size, buffers.maxBufferSize);

  const std::optional<MemoryTypeChoice> type = ChooseMemoryType(memory, ~uint32_t{0}, BufferUsage::kDevice);
  if (type.has_value()) {
    limits.heap_bytes = memory.memoryHeaps[memory.memoryTypes[type->index].heapIndex].size;
    limits.max_allocation_size = std::min(limits.max_allocation_size, limits.heap_bytes);
    limits.unified_memory = type->host_visible;
  }
  return limits;
}

FloatControls ReadFloatControls(VkPhysicalDevice device) {
  VkPhysicalDeviceFloatControlsProperties offered = {VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FLOAT_CONTROLS_PROPERTIES};
  VkPhysicalDeviceProperties2 properties = {VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2};
  properties.pNext = &offered;
  vkGetPhysicalDeviceProperties2(device, &properties);
  return {.rounding_mode_rte = offered.shaderRoundingModeRTEFloat32 == VK_TRUE,
          .denorm_preserve = offered.shaderDenormPreserveFloat32 == VK_TRUE,
          .signed_zero_inf_nan_preserve = offered.shaderSignedZeroInfNanPreserveFloat32 == VK_TRUE};
}

void ApplyMask(const DeviceMask& mask, DeviceLimits& limits) {
  Cap(limits.max_storage_buffer_range, mask.max_storage_buffer_range);
  Cap(limits.max_allocation_size, mask.max_allocation_size);
  Cap(limits.max_workgroup_invocations, mask.max_workgroup_invocations);
  Cap(limits.max_workgroup_size_x, mask.max_workgroup_invocations);
  for (uint32_t& count : limits.max_workgroup_count) Cap(count, mask.max_workgroup_count);
  Cap(limits.max_shared_memory_bytes, mask.max_shared_memory_bytes);
  if (mask.no_host_visible_device_memory) limits.unified_memory = false;
}

absl::StatusOr<VkPhysicalDevice> FindPhysicalDevice(const Instance& instance, const DeviceSnapshot& snapshot) {
  auto devices = ListPhysicalDevices(instance);
  if (!devices.ok()) return devices.status();
  if (snapshot.index < devices->size()) {
    VkPhysicalDevice device = (*devices)[snapshot.index];
    const DeviceSnapshot now = TakeSnapshot(device, snapshot.index);
    if (now.uuid == snapshot.uuid && now.name == snapshot.name) return device;
  }
  return absl::FailedPreconditionError(
      absl::StrCat("device ", snapshot.index, " (", snapshot.name, ") is no longer where the loader listed it"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Device>> Device::Create(const Instance& instance, const DeviceSnapshot& snapshot,
                                                       const DeviceOptions& options) {
  const std::vector<std::string> missing = MissingRequirements(snapshot);
  if (!missing.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("device \"", snapshot.name, "\" cannot be used: ", absl::StrJoin(missing, "; ")));
  }
  auto physical = FindPhysicalDevice(instance, snapshot);
  if (!physical.ok()) return physical.status();

  std::unique_ptr<Device> self(new Device());
  self->snapshot_ = snapshot;
  self->mask_ = options.mask;
  vkGetPhysicalDeviceMemoryProperties(*physical, &self->memory_);
  self->limits_ = ReadLimits(*physical, snapshot, self->memory_);
  ApplyMask(options.mask, self->limits_);
  VkPhysicalDeviceProperties properties;
  vkGetPhysicalDeviceProperties(*physical, &properties);
  self->non_coherent_atom_size_ = properties.limits.nonCoherentAtomSize;
  self->push_descriptors_ = snapshot.push_descriptor && !options.mask.no_push_descriptors;
  if (!options.mask.no_float_controls) self->float_controls_ = ReadFloatControls(*physical);
  self->queue_family_ = *snapshot.compute_queue_family;

  const float priority = 1.0f;
  VkDeviceQueueCreateInfo queue = {VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO};
  queue.queueFamilyIndex = self->queue_family_;
  queue.queueCount = 1;
  queue.pQueuePriorities = &priority;
  VkPhysicalDeviceTimelineSemaphoreFeatures timeline = {VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_TIMELINE_SEMAPHORE_FEATURES};
  timeline.timelineSemaphore = VK_TRUE;
  std::vector<const char*> extensions;
  if (self->push_descriptors_) extensions.push_back(VK_KHR_PUSH_DESCRIPTOR_EXTENSION_NAME);
  VkDeviceCreateInfo create = {VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO};
  create.pNext = &timeline;
  create.queueCreateInfoCount = 1;
  create.pQueueCreateInfos = &queue;
  create.enabledExtensionCount = static_cast<uint32_t>(extensions.size());
  create.ppEnabledExtensionNames = extensions.data();
  const VkResult result = vkCreateDevice(*physical, &create, nullptr, &self->device_);
  if (result != VK_SUCCESS) {
    self->device_ = VK_NULL_HANDLE;
    return ResultStatus(result, absl::StrCat("vkCreateDevice for \"", snapshot.name, "\""));
  }
  volkLoadDeviceTable(&self->vk_, self->device_);
  if (options.replace_functions) options.replace_functions(self->vk_);
  self->vk_.vkGetDeviceQueue(self->device_, self->queue_family_, 0, &self->queue_);
  auto created = Timeline::Create(self->device_, self->vk_);
  if (!created.ok()) return created.status();
  self->timeline_ = *std::move(created);
  return self;
}

Device::~Device() {
  timeline_.reset();
  if (device_ != VK_NULL_HANDLE) vk_.vkDestroyDevice(device_, nullptr);
}

}  // namespace normserve::vulkan
