#include "kernels/vulkan/result.h"

#include "absl/strings/str_cat.h"
#include "kernels/error_reason.h"

namespace normserve::vulkan {

absl::string_view ResultName(VkResult result) {
  switch (result) {
    case VK_SUCCESS:
      return "VK_SUCCESS";
    case VK_NOT_READY:
      return "VK_NOT_READY";
    case VK_TIMEOUT:
      return "VK_TIMEOUT";
    case VK_INCOMPLETE:
      return "VK_INCOMPLETE";
    case VK_ERROR_OUT_OF_HOST_MEMORY:
      return "VK_ERROR_OUT_OF_HOST_MEMORY";
    case VK_ERROR_OUT_OF_DEVICE_MEMORY:
      return "VK_ERROR_OUT_OF_DEVICE_MEMORY";
    case VK_ERROR_INITIALIZATION_FAILED:
      return "VK_ERROR_INITIALIZATION_FAILED";
    case VK_ERROR_DEVICE_LOST:
      return "VK_ERROR_DEVICE_LOST";
    case VK_ERROR_MEMORY_MAP_FAILED:
      return "VK_ERROR_MEMORY_MAP_FAILED";
    case VK_ERROR_LAYER_NOT_PRESENT:
      return "VK_ERROR_LAYER_NOT_PRESENT";
    case VK_ERROR_EXTENSION_NOT_PRESENT:
      return "VK_ERROR_EXTENSION_NOT_PRESENT";
    case VK_ERROR_FEATURE_NOT_PRESENT:
      return "VK_ERROR_FEATURE_NOT_PRESENT";
    case VK_ERROR_INCOMPATIBLE_DRIVER:
      return "VK_ERROR_INCOMPATIBLE_DRIVER";
    case VK_ERROR_TOO_MANY_OBJECTS:
      return "VK_ERROR_TOO_MANY_OBJECTS";
    case VK_ERROR_FRAGMENTED_POOL:
      return "VK_ERROR_FRAGMENTED_POOL";
    case VK_ERROR_OUT_OF_POOL_MEMORY:
      return "VK_ERROR_OUT_OF_POOL_MEMORY";
    default:
      return "unknown VkResult";
  }
}

absl::Status ResultStatus(VkResult result, absl::string_view call) {
  const std::string message = absl::StrCat(call, " failed: ", ResultName(result), " (", static_cast<int>(result), ")");
  switch (result) {
    case VK_SUCCESS:
      return absl::OkStatus();
    case VK_ERROR_OUT_OF_HOST_MEMORY:
    case VK_ERROR_OUT_OF_DEVICE_MEMORY:
    case VK_ERROR_TOO_MANY_OBJECTS:
    case VK_ERROR_MEMORY_MAP_FAILED:
      return MakeError(absl::StatusCode::kResourceExhausted, ErrorReason::kDeviceMemory, message);
    case VK_ERROR_DEVICE_LOST:
      return MakeError(absl::StatusCode::kUnavailable, ErrorReason::kDeviceLost, message);
    default:
      return absl::InternalError(message);
  }
}

absl::Status DeviceLostError(absl::string_view device_name) {
  return MakeError(absl::StatusCode::kUnavailable, ErrorReason::kDeviceLost,
                   absl::StrCat("device \"", device_name,
                                "\" was lost: repeat the call on another device, or restart "
                                "the server and look for the cause in the kernel's log (dmesg)"),
                   {{"device", std::string(device_name)}});
}

}  // namespace normserve::vulkan
