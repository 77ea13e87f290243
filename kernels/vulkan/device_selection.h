// Which device computes: a pure function over a snapshot of what the machine has.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace normserve::vulkan {

class Instance;

enum class DeviceType { kDiscreteGpu, kIntegratedGpu, kVirtualGpu, kCpu, kOther };

// "discrete GPU", "CPU" and so on.
const char* DeviceTypeName(DeviceType type);

// One physical device as the loader lists it.
struct DeviceSnapshot {
  size_t index = 0;  // position in the loader's list
  std::string name;
  std::string uuid;  // 32 lower-case hexadecimal digits
  DeviceType type = DeviceType::kOther;
  std::string driver_name;
  std::string driver_info;
  uint32_t api_version_major = 0;
  uint32_t api_version_minor = 0;
  // Queue family to compute on (one without graphics where there is one); nothing if no family computes.
  std::optional<uint32_t> compute_queue_family;
  bool timeline_semaphore = false;
  bool push_descriptor = false;
};

// What keeps `device` from being used, in words ("Vulkan 1.1, needs 1.2"); empty if it can be.
std::vector<std::string> MissingRequirements(const DeviceSnapshot& device);

struct SelectionOptions {
  // Empty: the best device. Otherwise an index into the list, a UUID (dashes and case do not matter), or a part of the
  // device's or its driver's name (case does not matter); of several that match the best is taken.
  std::string device;
  // Refuse CPU drivers.
  bool require_gpu = false;
};

struct Selection {
  size_t chosen = 0;  // position in the span given to SelectDevice
  // Per device, why it was or was not chosen.
  std::vector<std::string> reasons;
  // Set when the choice deserves a line in the log: a CPU driver computes.
  std::optional<std::string> warning;
};

// Prefers discrete over integrated over virtual GPUs over CPU drivers; among equals the first listed.
//
// NOT_FOUND: `device` names none of them. FAILED_PRECONDITION: no device, none that meets the requirements, the one
// named does not, or only CPU drivers with require_gpu. The messages list what is there and say what to do.
absl::StatusOr<Selection> SelectDevice(absl::Span<const DeviceSnapshot> devices, const SelectionOptions& options);

// The physical devices in the loader's order; empty if there is none.
absl::StatusOr<std::vector<DeviceSnapshot>> Enumerate(const Instance& instance);

}  // namespace normserve::vulkan
