// What is asked of a physical device before one is opened. Inside this folder only.
#pragma once

#include <cstddef>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/vulkan/device_selection.h"
#include "kernels/vulkan/instance.h"
#include "kernels/vulkan/vulkan_api.h"

namespace normserve::vulkan {

// The loader's list; empty if there is no device.
absl::StatusOr<std::vector<VkPhysicalDevice>> ListPhysicalDevices(const Instance& instance);

// Whether the device offers the device extension `name`.
bool HasExtension(VkPhysicalDevice device, absl::string_view name);

// The device at `index` of the list, as selection sees it.
DeviceSnapshot TakeSnapshot(VkPhysicalDevice device, size_t index);

}  // namespace normserve::vulkan
