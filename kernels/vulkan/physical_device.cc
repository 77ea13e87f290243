#include "kernels/vulkan/physical_device.h"

#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "kernels/vulkan/result.h"

namespace normserve::vulkan {
namespace {

DeviceType TypeOf(VkPhysicalDeviceType type) {
  switch (type) {
    case VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU:
      return DeviceType::kDiscreteGpu;
    case VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU:
      return DeviceType::kIntegratedGpu;
    case VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU:
      return DeviceType::kVirtualGpu;
    case VK_PHYSICAL_DEVICE_TYPE_CPU:
      return DeviceType::kCpu;
    default:
      return DeviceType::kOther;
  }
}

// A family that computes without drawing, which runs beside a desktop's drawing; else the first that computes.
std::optional<uint32_t> ComputeQueueFamily(VkPhysicalDevice device) {
  uint32_t count = 0;
  vkGetPhysicalDeviceQueueFamilyProperties(device, &count, nullptr);
  std::vector<VkQueueFamilyProperties> families(count);
  vkGetPhysicalDeviceQueueFamilyProperties(device, &count, families.data());
  std::optional<uint32_t> found;
  for (uint32_t i = 0; i < count; ++i) {
    if (families[i].queueCount == 0 || (families[i].queueFlags & VK_QUEUE_COMPUTE_BIT) == 0) continue;
    if ((families[i].queueFlags & VK_QUEUE_GRAPHICS_BIT) == 0) return i;
    if (!found.has_value()) found = i;
  }
  return found;
}

}  // namespace

absl::StatusOr<std::vector<VkPhysicalDevice>> ListPhysicalDevices(const Instance& instance) {
  uint32_t count = 0;
  VkResult result = vkEnumeratePhysicalDevices(instance.handle(), &count, nullptr);
  // Some loaders say so instead of listing none.
  if (result == VK_ERROR_INITIALIZATION_FAILED) return std::vector<VkPhysicalDevice>();
  if (result != VK_SUCCESS) return ResultStatus(result, "vkEnumeratePhysicalDevices");
  std::vector<VkPhysicalDevice> devices(count);
  result = vkEnumeratePhysicalDevices(instance.handle(), &count, devices.data());
  if (result != VK_SUCCESS && result != VK_INCOMPLETE) return ResultStatus(result, "vkEnumeratePhysicalDevices");
  devices.resize(count);
  return devices;
}

bool HasExtension(VkPhysicalDevice device, absl::string_view name) {
  uint32_t count = 0;
  if (vkEnumerateDeviceExtensionProperties(device, nullptr, &count, nullptr) != VK_SUCCESS) return false;
  std::vector<VkExtensionProperties> extensions(count);
  if (vkEnumerateDeviceExtensionProperties(device, nullptr, &count, extensions.data()) < 0) return false;
  for (const VkExtensionProperties& extension : extensions) {
    if (name == extension.extensionName) return true;
  }
  return false;
}

DeviceSnapshot TakeSnapshot(VkPhysicalDevice device, size_t index) {
  DeviceSnapshot snapshot;
  VkPhysicalDeviceProperties basic;
  vkGetPhysicalDeviceProperties(device, &basic);
  snapshot.index = index;
  snapshot.name = basic.deviceName;
  snapshot.type = TypeOf(basic.deviceType);
  snapshot.api_version_major = VK_API_VERSION_MAJOR(basic.apiVersion);
  snapshot.api_version_minor = VK_API_VERSION_MINOR(basic.apiVersion);
  snapshot.compute_queue_family = ComputeQueueFamily(device);
  // An older device may not know the questions below.
  if (basic.apiVersion < VK_API_VERSION_1_2) return snapshot;

  VkPhysicalDeviceDriverProperties driver = {VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DRIVER_PROPERTIES};
  VkPhysicalDeviceIDProperties id = {VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_ID_PROPERTIES};
  id.pNext = &driver;
  VkPhysicalDeviceProperties2 properties = {VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2};
  properties.pNext = &id;
  vkGetPhysicalDeviceProperties2(device, &properties);
  snapshot.uuid = absl::BytesToHexString(absl::string_view(reinterpret_cast<const char*>(id.deviceUUID), VK_UUID_SIZE));
  snapshot.driver_name = driver.driverName;
  snapshot.driver_info = driver.driverInfo;

  VkPhysicalDeviceTimelineSemaphoreFeatures timeline = {VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_TIMELINE_SEMAPHORE_FEATURES};
  VkPhysicalDeviceFeatures2 features = {VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2};
  features.pNext = &timeline;
  vkGetPhysicalDeviceFeatures2(device, &features);
  snapshot.timeline_semaphore = timeline.timelineSemaphore == VK_TRUE;
  snapshot.push_descriptor = HasExtension(device, VK_KHR_PUSH_DESCRIPTOR_EXTENSION_NAME);
  return snapshot;
}

absl::StatusOr<std::vector<DeviceSnapshot>> Enumerate(const Instance& instance) {
  auto devices = ListPhysicalDevices(instance);
  if (!devices.ok()) return devices.status();
  std::vector<DeviceSnapshot> snapshots;
  for (size_t i = 0; i < devices->size(); ++i) snapshots.push_back(TakeSnapshot((*devices)[i], i));
  return snapshots;
}

}  // namespace normserve::vulkan
