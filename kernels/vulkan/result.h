// VkResult in words, and as a status.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "kernels/vulkan/vulkan_api.h"

namespace normserve::vulkan {

// "VK_ERROR_DEVICE_LOST" and so on.
absl::string_view ResultName(VkResult result);

// OK for VK_SUCCESS. Otherwise a status that names `call`: RESOURCE_EXHAUSTED (DEVICE_MEMORY) when memory ran out,
// UNAVAILABLE (DEVICE_LOST) when the device was lost, else INTERNAL.
absl::Status ResultStatus(VkResult result, absl::string_view call);

// What every job gets once a device is lost: UNAVAILABLE (DEVICE_LOST).
absl::Status DeviceLostError(absl::string_view device_name);

}  // namespace normserve::vulkan
