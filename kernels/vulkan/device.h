// A logical device with one compute queue.
#pragma once

#include <atomic>
#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/vulkan/device_limits.h"
#include "kernels/vulkan/device_mask.h"
#include "kernels/vulkan/device_selection.h"
#include "kernels/vulkan/float_controls.h"
#include "kernels/vulkan/instance.h"
#include "kernels/vulkan/timeline.h"
#include "kernels/vulkan/vulkan_api.h"

namespace normserve::vulkan {

struct DeviceOptions {
  DeviceMask mask;
  // Called once with the functions of the new device, before any is used: a test puts its own in place of the
  // driver's, to lose the device or its memory at a chosen call.
  std::function<void(VolkDeviceTable&)> replace_functions;
};

// Thread-safe, except that the queue belongs to the one Submitter of the device. Outlives everything made from it.
class Device {
 public:
  // Opens the device that `snapshot`, from Enumerate(instance), describes. FAILED_PRECONDITION if it lacks a
  // requirement; otherwise what the driver refused.
  static absl::StatusOr<std::unique_ptr<Device>> Create(const Instance& instance, const DeviceSnapshot& snapshot,
                                                        const DeviceOptions& options = {});
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  VkDevice handle() const { return device_; }
  const VolkDeviceTable& vk() const { return vk_; }
  VkQueue queue() const { return queue_; }
  uint32_t queue_family() const { return queue_family_; }

  const DeviceSnapshot& snapshot() const { return snapshot_; }
  const DeviceLimits& limits() const { return limits_; }
  const DeviceMask& mask() const { return mask_; }
  bool push_descriptors() const { return push_descriptors_; }
  // What the device offers and the mask leaves; every pipeline declares it.
  const FloatControls& float_controls() const { return float_controls_; }
  const VkPhysicalDeviceMemoryProperties& memory() const { return memory_; }
  // Ranges of non-coherent memory are flushed in multiples of this.
  uint64_t non_coherent_atom_size() const { return non_coherent_atom_size_; }

  // Rises with each submit that completes.
  const Timeline& timeline() const { return *timeline_; }

  // Whether the device was lost. It stays lost: nothing but a new Device helps.
  bool lost() const { return lost_.load(std::memory_order_acquire); }
  void MarkLost() { lost_.store(true, std::memory_order_release); }

 private:
  Device() = default;

  DeviceSnapshot snapshot_;
  DeviceMask mask_;
  DeviceLimits limits_;
  VkPhysicalDeviceMemoryProperties memory_ = {};
  uint64_t non_coherent_atom_size_ = 1;
  bool push_descriptors_ = false;
  FloatControls float_controls_;
  VkDevice device_ = VK_NULL_HANDLE;
  VolkDeviceTable vk_ = {};
  uint32_t queue_family_ = 0;
  VkQueue queue_ = VK_NULL_HANDLE;
  std::unique_ptr<Timeline> timeline_;
  std::atomic<bool> lost_ = false;
};

}  // namespace normserve::vulkan
