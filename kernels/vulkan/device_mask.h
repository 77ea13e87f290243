// Makes a capable device look like a poorer one, so that every path runs on the machine at hand.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace normserve::vulkan {

// A mask only takes away: a limit above the device's own changes nothing.
struct DeviceMask {
  std::optional<uint64_t> max_storage_buffer_range;   // bytes
  std::optional<uint64_t> max_allocation_size;        // bytes
  std::optional<uint32_t> max_workgroup_invocations;  // also caps max_workgroup_size_x
  std::optional<uint32_t> max_workgroup_count;        // caps each of the three dimensions
  std::optional<uint32_t> max_shared_memory_bytes;
  // Device buffers are not mapped: tensors go through upload and readback buffers, as on a discrete GPU.
  bool no_host_visible_device_memory = false;
  // Descriptor sets even where the device has push descriptors.
  bool no_push_descriptors = false;
  // Pipelines declare no float controls, as where a device offers none.
  bool no_float_controls = false;

  friend bool operator==(const DeviceMask&, const DeviceMask&) = default;
};

// Reads "max_storage_buffer_range=1048576,staging": limits by their name above, `staging`
// (no_host_visible_device_memory), `no_push_descriptors` and `no_float_controls`, separated by commas. Empty text masks
// nothing. INVALID_ARGUMENT: an unknown name, a limit that is no positive integer, something named twice.
absl::StatusOr<DeviceMask> ParseDeviceMask(absl::string_view text);

// The text that ParseDeviceMask reads back as `mask`; "" when it masks nothing.
std::string DeviceMaskText(const DeviceMask& mask);

}  // namespace normserve::vulkan
