// A counter on the device that only rises: submitted work raises it when it completes.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kernels/vulkan/vulkan_api.h"

namespace normserve::vulkan {

// A timeline semaphore. Thread-safe. The device outlives it.
class Timeline {
 public:
  static absl::StatusOr<std::unique_ptr<Timeline>> Create(VkDevice device, const VolkDeviceTable& vk);
  ~Timeline();
  Timeline(const Timeline&) = delete;
  Timeline& operator=(const Timeline&) = delete;

  VkSemaphore handle() const { return semaphore_; }

  // The value reached so far. UNAVAILABLE if the device is lost.
  absl::StatusOr<uint64_t> Completed() const;

  // Blocks until `value` is reached; false if `timeout` passed first. For the submitter's completion thread only.
  absl::StatusOr<bool> Wait(uint64_t value, absl::Duration timeout) const;

 private:
  Timeline(VkDevice device, const VolkDeviceTable& vk, VkSemaphore semaphore)
      : device_(device), vk_(vk), semaphore_(semaphore) {}

  const VkDevice device_;
  const VolkDeviceTable& vk_;
  const VkSemaphore semaphore_;
};

}  // namespace normserve::vulkan
