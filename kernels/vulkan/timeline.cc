#include "kernels/vulkan/timeline.h"

#include "kernels/vulkan/result.h"

namespace normserve::vulkan {

absl::StatusOr<std::unique_ptr<Timeline>> Timeline::Create(VkDevice device, const VolkDeviceTable& vk) {
  VkSemaphoreTypeCreateInfo type = {VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO};
  type.semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE;
  VkSemaphoreCreateInfo create = {VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO};
  create.pNext = &type;
  VkSemaphore semaphore = VK_NULL_HANDLE;
  const VkResult result = vk.vkCreateSemaphore(device, &create, nullptr, &semaphore);
  if (result != VK_SUCCESS) return ResultStatus(result, "vkCreateSemaphore");
  return std::unique_ptr<Timeline>(new Timeline(device, vk, semaphore));
}

Timeline::~Timeline() { vk_.vkDestroySemaphore(device_, semaphore_, nullptr); }

absl::StatusOr<uint64_t> Timeline::Completed() const {
  uint64_t value = 0;
  const VkResult result = vk_.vkGetSemaphoreCounterValue(device_, semaphore_, &value);
  if (result != VK_SUCCESS) return ResultStatus(result, "vkGetSemaphoreCounterValue");
  return value;
}

absl::StatusOr<bool> Timeline::Wait(uint64_t value, absl::Duration timeout) const {
  VkSemaphoreWaitInfo wait = {VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO};
  wait.semaphoreCount = 1;
  wait.pSemaphores = &semaphore_;
  wait.pValues = &value;
  const VkResult result =
      vk_.vkWaitSemaphores(device_, &wait, static_cast<uint64_t>(absl::ToInt64Nanoseconds(timeout)));
  if (result == VK_SUCCESS) return true;
  if (result == VK_TIMEOUT) return false;
  return ResultStatus(result, "vkWaitSemaphores");
}

}  // namespace normserve::vulkan
