// What a device can do, as plain numbers: planning is a pure function of this and needs no Vulkan.
#pragma once

#include <array>
#include <cstdint>
#include <string>

namespace normserve::vulkan {

// Limits after the device mask was applied. The names follow VkPhysicalDeviceLimits; sizes are bytes.
struct DeviceLimits {
  std::string name;
  // A driver that computes on the processor (lavapipe, SwiftShader): few fat workgroups suit it.
  bool is_cpu = false;

  // The longest range of a buffer that one binding may show to a shader. A buffer may be longer.
  uint64_t max_storage_buffer_range = 0;
  // An offset of a binding is a multiple of this.
  uint64_t min_storage_buffer_offset_alignment = 1;
  // Storage buffers that one pipeline may bind.
  uint32_t max_storage_buffers = 0;
  uint32_t max_push_constants_bytes = 0;

  uint32_t max_workgroup_invocations = 0;
  uint32_t max_workgroup_size_x = 0;
  std::array<uint32_t, 3> max_workgroup_count = {0, 0, 0};
  uint32_t max_shared_memory_bytes = 0;
  uint32_t subgroup_size = 0;

  // The largest single buffer.
  uint64_t max_allocation_size = 0;
  // Size of the heap that device buffers come from.
  uint64_t heap_bytes = 0;
  // Whether device buffers are mapped, so that tensors need no staging copy.
  bool unified_memory = false;
};

}  // namespace normserve::vulkan
