// Which kind of memory a buffer gets: a pure function over what the device lists.
#pragma once

#include <cstdint>
#include <optional>

#include "kernels/vulkan/vulkan_api.h"

namespace normserve::vulkan {

// What a buffer is for.
enum class BufferUsage {
  // Read and written by shaders. Mapped where memory is unified: device local, host visible and cached.
  kDevice,
  // Written by the host, then copied from.
  kUpload,
  // Copied to, then read by the host: cached memory, for reading uncached memory is many times slower.
  kReadback,
};

struct MemoryTypeChoice {
  uint32_t index = 0;
  // Whether the host is to map it.
  bool host_visible = false;
  bool coherent = false;
};

// The best type for `usage` among those whose bit is set in `allowed_types`; nothing if none will do.
//
// kDevice takes device-local memory that the host can map only if it is also cached. Mapped but uncached device
// memory (a resizable BAR) would make every read of a result crawl: there the plain device-local type and copies win.
std::optional<MemoryTypeChoice> ChooseMemoryType(const VkPhysicalDeviceMemoryProperties& memory, uint32_t allowed_types,
                                                 BufferUsage usage);

}  // namespace normserve::vulkan
