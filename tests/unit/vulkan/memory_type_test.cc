// Which memory a buffer gets on kinds of machine that are not at hand.
#include "kernels/vulkan/memory_type.h"

#include <gtest/gtest.h>

#include <optional>
#include <vector>

namespace normserve::vulkan {
namespace {

constexpr VkMemoryPropertyFlags kLocal = VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT;
constexpr VkMemoryPropertyFlags kVisible = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT;
constexpr VkMemoryPropertyFlags kCoherent = VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
constexpr VkMemoryPropertyFlags kCached = VK_MEMORY_PROPERTY_HOST_CACHED_BIT;

VkPhysicalDeviceMemoryProperties Memory(const std::vector<VkMemoryPropertyFlags>& types) {
  VkPhysicalDeviceMemoryProperties memory = {};
  memory.memoryTypeCount = static_cast<uint32_t>(types.size());
  for (size_t i = 0; i < types.size(); ++i) memory.memoryTypes[i].propertyFlags = types[i];
  return memory;
}

TEST(MemoryTypeTest, EachUsageGetsWhatTheTableSays) {
  struct Case {
    const char* machine;
    std::vector<VkMemoryPropertyFlags> types;
    uint32_t device, upload, readback;
    bool unified;
  };
  const Case cases[] = {
      {"CPU driver", {kLocal | kVisible | kCoherent | kCached}, 0, 0, 0, true},
      {"discrete GPU", {0, kLocal, kVisible | kCoherent, kVisible | kCoherent | kCached}, 1, 2, 3, false},
      {"discrete GPU with a resizable BAR: reading through it would crawl",
       {kLocal | kVisible | kCoherent, kLocal, kVisible | kCoherent, kVisible | kCoherent | kCached},
       1,
       2,
       3,
       false},
      {"integrated GPU",
       {kLocal, kLocal | kVisible | kCoherent, kLocal | kVisible | kCoherent | kCached},
       2,
       1,
       2,
       true},
      {"integrated GPU whose cached memory is not coherent",
       {kLocal | kVisible | kCoherent, kLocal | kVisible | kCached},
       1,
       0,
       1,
       true},
      {"only mapped, uncached memory", {kLocal | kVisible | kCoherent}, 0, 0, 0, false},
      {"protected and lazily allocated memory is not for buffers",
       {kLocal | VK_MEMORY_PROPERTY_PROTECTED_BIT, kLocal | VK_MEMORY_PROPERTY_LAZILY_ALLOCATED_BIT, kLocal,
        kVisible | kCoherent},
       2,
       3,
       3,
       false},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.machine);
    const VkPhysicalDeviceMemoryProperties memory = Memory(c.types);
    const auto choose = [&](BufferUsage usage) { return ChooseMemoryType(memory, ~uint32_t{0}, usage).value(); };
    EXPECT_EQ(choose(BufferUsage::kDevice).index, c.device);
    EXPECT_EQ(choose(BufferUsage::kDevice).host_visible, c.unified);
    EXPECT_EQ(choose(BufferUsage::kUpload).index, c.upload);
    EXPECT_EQ(choose(BufferUsage::kReadback).index, c.readback);
    for (BufferUsage usage : {BufferUsage::kUpload, BufferUsage::kReadback}) {
      EXPECT_TRUE(choose(usage).host_visible);
      EXPECT_EQ(choose(usage).coherent, (c.types[choose(usage).index] & kCoherent) != 0);
    }
  }
}

TEST(MemoryTypeTest, OnlyAllowedTypesAreTaken) {
  const VkPhysicalDeviceMemoryProperties memory = Memory({kLocal, kVisible | kCoherent, kLocal});
  EXPECT_EQ(ChooseMemoryType(memory, 0b100, BufferUsage::kDevice)->index, 2u);
  EXPECT_EQ(ChooseMemoryType(memory, 0b010, BufferUsage::kDevice)->index, 1u);
  EXPECT_FALSE(ChooseMemoryType(memory, 0b101, BufferUsage::kUpload).has_value());
}

}  // namespace
}  // namespace normserve::vulkan
