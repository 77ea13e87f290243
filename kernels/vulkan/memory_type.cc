#include "kernels/vulkan/memory_type.h"

#include <initializer_list>

namespace normserve::vulkan {
namespace {

constexpr VkMemoryPropertyFlags kLocal = VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT;
constexpr VkMemoryPropertyFlags kVisible = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT;
constexpr VkMemoryPropertyFlags kCoherent = VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
constexpr VkMemoryPropertyFlags kCached = VK_MEMORY_PROPERTY_HOST_CACHED_BIT;
// Memory with properties that need more than we ask for, or that a plain buffer must not use.
constexpr VkMemoryPropertyFlags kSpecial = VK_MEMORY_PROPERTY_PROTECTED_BIT | VK_MEMORY_PROPERTY_LAZILY_ALLOCATED_BIT |
                                           VK_MEMORY_PROPERTY_DEVICE_COHERENT_BIT_AMD;

struct Wish {
  VkMemoryPropertyFlags with = 0;
  VkMemoryPropertyFlags without = 0;
};

std::optional<MemoryTypeChoice> First(const VkPhysicalDeviceMemoryProperties& memory, uint32_t allowed_types,
                                      std::initializer_list<Wish> wishes) {
  for (const Wish& wish : wishes) {
    for (uint32_t i = 0; i < memory.memoryTypeCount; ++i) {
      const VkMemoryPropertyFlags flags = memory.memoryTypes[i].propertyFlags;
      if ((allowed_types >> i & 1) == 0 || (flags & (kSpecial | wish.without)) != 0) continue;
      if ((flags & wish.with) != wish.with) continue;
      return MemoryTypeChoice{i, (flags & kVisible) != 0, (flags & kCoherent) != 0};
    }
  }
  return std::nullopt;
}

}  // namespace

std::optional<MemoryTypeChoice> ChooseMemoryType(const VkPhysicalDeviceMemoryProperties& memory, uint32_t allowed_types,
                                                 BufferUsage usage) {
  switch (usage) {
    case BufferUsage::kDevice: {
      const std::optional<MemoryTypeChoice> unified =
          First(memory, allowed_types, {{kLocal | kVisible | kCached | kCoherent}, {kLocal | kVisible | kCached}});
      if (unified.has_value()) return unified;
      std::optional<MemoryTypeChoice> local = First(memory, allowed_types, {{kLocal, kVisible}, {kLocal}, {}});
      if (local.has_value()) local->host_visible = false;
      return local;
    }
    case BufferUsage::kUpload:
      // Not device local, where there is a choice: a discrete GPU's window into its own memory is often small.
      return First(memory, allowed_types, {{kVisible | kCoherent, kLocal}, {kVisible | kCoherent}, {kVisible}});
    case BufferUsage::kReadback:
      return First(memory, allowed_types,
                   {{kVisible | kCached | kCoherent}, {kVisible | kCached}, {kVisible | kCoherent}, {kVisible}});
  }
  return std::nullopt;
}

}  // namespace normserve::vulkan
