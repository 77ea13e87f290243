// The pool lends memory again without asking the device for more, and never too early.
#include "kernels/vulkan/buffer_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <thread>
#include <vector>

#include "kernels/error_reason.h"
#include "kernels/vulkan/size_class.h"
#include "tests/unit/vulkan/device_test_fixture.h"

namespace normserve::vulkan {
namespace {

constexpr BufferUsage kUsages[] = {BufferUsage::kDevice, BufferUsage::kUpload, BufferUsage::kReadback};

TEST(SizeClassTest, HoldsTheSizeWithAnEighthToSpareAtMost) {
  for (uint64_t size = 1; size < (uint64_t{1} << 40); size = size + 1 + size / 7) {
    for (uint64_t s : {size - (size > 1), size, size + 1}) {
      const uint64_t block = SizeClass(s);
      ASSERT_GE(block, s);
      ASSERT_LE(block - s, std::max<uint64_t>(s / 8, 255)) << s;
      ASSERT_EQ(block % 256, 0u) << s;
      ASSERT_EQ(SizeClass(block), block) << s;
    }
  }
}

class BufferPoolTest : public DeviceTest {};

TEST_P(BufferPoolTest, AThousandRoundsAllocateOnlyInTheFirst) {
  const OpenDevice open = Open();
  BufferPool& pool = *open.buffers;
  uint64_t allocations = 0;
  for (int round = 0; round < 1000; ++round) {
    std::vector<std::shared_ptr<Buffer>> held;
    for (uint64_t size : {40, 256, 3000, 4 * 3 * 32 * 32 * 4, 300000, 1500000}) {
      for (BufferUsage usage : kUsages) held.push_back(OrDie(pool.Acquire(size - round % 5, usage)));
    }
    if (round == 0) allocations = pool.counters().device_allocations;
  }
  EXPECT_EQ(pool.counters().device_allocations, allocations);
  EXPECT_EQ(pool.counters().in_use_bytes, 0u);
  EXPECT_EQ(pool.counters().buffers_in_use, 0u);
}

TEST_P(BufferPoolTest, SmallBuffersShareAnAllocation) {
  const OpenDevice open = Open();
  std::vector<std::shared_ptr<Buffer>> held;
  for (int i = 0; i < 64; ++i) {
    held.push_back(OrDie(open.buffers->Acquire(256, BufferUsage::kUpload)));
    std::fill_n(held[i]->mapped(), 256, static_cast<std::byte>(i));
  }
  EXPECT_EQ(open.buffers->counters().device_allocations, 1u);
  for (int i = 0; i < 64; ++i) {
    ASSERT_TRUE(std::all_of(held[i]->mapped(), held[i]->mapped() + 256,
                            [i](std::byte b) { return b == static_cast<std::byte>(i); }));
  }
}

TEST_P(BufferPoolTest, IdleMemoryBeyondItsBoundGoesBackLongestUnusedFirst) {
  const OpenDevice open = Open({}, {.max_idle_bytes = 2 << 20, .poison = true});
  BufferPool& pool = *open.buffers;
  auto first = OrDie(pool.Acquire(1 << 20, BufferUsage::kDevice));
  auto second = OrDie(pool.Acquire(1 << 20, BufferUsage::kDevice));
  auto third = OrDie(pool.Acquire(1 << 20, BufferUsage::kDevice));
  const VkBuffer second_handle = second->handle();
  const VkBuffer third_handle = third->handle();
  first.reset();
  second.reset();
  third.reset();
  EXPECT_EQ(pool.counters().idle_bytes, uint64_t{2} << 20);
  first = OrDie(pool.Acquire(1 << 20, BufferUsage::kDevice));
  second = OrDie(pool.Acquire(1 << 20, BufferUsage::kDevice));
  EXPECT_EQ(first->handle(), third_handle);
  EXPECT_EQ(second->handle(), second_handle);
  EXPECT_EQ(pool.counters().device_allocations, 3u);
}

TEST_P(BufferPoolTest, MemoryBeyondTheTotalBoundIsRefusedAndNothingIsLost) {
  const OpenDevice open = Open({}, {.max_total_bytes = 4 << 20, .poison = true});
  BufferPool& pool = *open.buffers;
  std::vector<std::shared_ptr<Buffer>> held;
  for (int i = 0; i < 4; ++i) held.push_back(OrDie(pool.Acquire(1 << 20, BufferUsage::kDevice)));
  auto refused = pool.Acquire(1 << 20, BufferUsage::kDevice);
  EXPECT_TRUE(absl::IsResourceExhausted(refused.status())) << refused.status();
  EXPECT_EQ(GetErrorDetails(refused.status())->reason, ErrorReason::kDeviceMemory);
  EXPECT_EQ(pool.counters().buffers_in_use, 4u);

  // Idle memory of another size makes room.
  held.clear();
  auto big = pool.Acquire(4 << 20, BufferUsage::kDevice);
  EXPECT_TRUE(big.ok()) << big.status();
  EXPECT_EQ(pool.counters().idle_bytes, 0u);
}

TEST_P(BufferPoolTest, ABufferOverTheAllocationLimitIsRefused) {
  const OpenDevice open = Open({.mask = OrDie(ParseDeviceMask("max_allocation_size=1048576"))});
  EXPECT_TRUE(open.buffers->Acquire(1048576, BufferUsage::kDevice).ok());
  auto refused = open.buffers->Acquire(1048577, BufferUsage::kDevice);
  EXPECT_TRUE(absl::IsResourceExhausted(refused.status())) << refused.status();
}

TEST_P(BufferPoolTest, ADeviceOutOfMemoryIsAStatusAndIdleMemoryIsGivenUpFirst) {
  // The device refuses any allocation while another of a MiB or more is alive.
  static PFN_vkAllocateMemory allocate;
  static PFN_vkFreeMemory free;
  static int alive;
  alive = 0;
  DeviceOptions options;
  options.replace_functions = [](VolkDeviceTable& vk) {
    allocate = vk.vkAllocateMemory;
    free = vk.vkFreeMemory;
    vk.vkAllocateMemory = [](VkDevice device, const VkMemoryAllocateInfo* info, const VkAllocationCallbacks* callbacks,
                             VkDeviceMemory* memory) -> VkResult {
      if (alive > 0) return VK_ERROR_OUT_OF_DEVICE_MEMORY;
      ++alive;
      return allocate(device, info, callbacks, memory);
    };
    vk.vkFreeMemory = [](VkDevice device, VkDeviceMemory memory, const VkAllocationCallbacks* callbacks) {
      --alive;
      free(device, memory, callbacks);
    };
  };
  const OpenDevice open = Open(options);
  auto first = OrDie(open.buffers->Acquire(1 << 20, BufferUsage::kDevice));
  auto refused = open.buffers->Acquire(2 << 20, BufferUsage::kDevice);
  EXPECT_TRUE(absl::IsResourceExhausted(refused.status())) << refused.status();
  EXPECT_EQ(GetErrorDetails(refused.status())->reason, ErrorReason::kDeviceMemory);
  first.reset();
  auto second = open.buffers->Acquire(2 << 20, BufferUsage::kDevice);
  EXPECT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(alive, 1);
}

TEST_P(BufferPoolTest, PoisonShowsInFreshAndInReturnedMemory) {
  const OpenDevice open = Open();
  auto buffer = OrDie(open.buffers->Acquire(1000, BufferUsage::kUpload));
  std::byte* const memory = buffer->mapped();
  const auto poisoned = [memory] {
    return std::all_of(memory, memory + 1000, [](std::byte b) { return b == std::byte{0xFF}; });
  };
  EXPECT_TRUE(poisoned());
  std::fill_n(memory, 1000, std::byte{1});
  buffer.reset();
  EXPECT_TRUE(poisoned());  // the pool keeps the memory mapped
  std::fill_n(memory, 1000, std::byte{1});
  buffer = OrDie(open.buffers->Acquire(1000, BufferUsage::kUpload));
  ASSERT_EQ(buffer->mapped(), memory);
  EXPECT_TRUE(poisoned());
}

TEST_P(BufferPoolTest, LendingABlockWhoseLastUseHasNotCompletedEndsTheProcess) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const OpenDevice open = Open();
  const uint64_t completed = OrDie(open.device->timeline().Completed());
  auto buffer = OrDie(open.buffers->Acquire(1 << 20, BufferUsage::kDevice));
  buffer->RecordUse(completed);
  buffer.reset();
  buffer = OrDie(open.buffers->Acquire(1 << 20, BufferUsage::kDevice));
  EXPECT_DEATH(
      {
        buffer->RecordUse(completed + 1);
        buffer.reset();
        buffer = OrDie(open.buffers->Acquire(1 << 20, BufferUsage::kDevice));
      },
      "device_has_done_with_the_block");
}

TEST_P(BufferPoolTest, StagingMaskHidesDeviceMemoryFromTheHost) {
  const OpenDevice open = Open({.mask = OrDie(ParseDeviceMask("staging"))});
  EXPECT_EQ(OrDie(open.buffers->Acquire(64, BufferUsage::kDevice))->mapped(), nullptr);
  EXPECT_NE(OrDie(open.buffers->Acquire(64, BufferUsage::kUpload))->mapped(), nullptr);
  EXPECT_NE(OrDie(open.buffers->Acquire(64, BufferUsage::kReadback))->mapped(), nullptr);
}

TEST_P(BufferPoolTest, ThreadsBesideEachOtherNeverShareABuffer) {
  const OpenDevice open = Open({}, {.max_idle_bytes = 1 << 20});
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&open, t] {
      std::mt19937 random(t);
      for (int i = 0; i < 300; ++i) {
        const uint64_t size = 1 + random() % 400000;
        auto buffer = OrDie(open.buffers->Acquire(size, BufferUsage::kUpload));
        std::fill_n(buffer->mapped(), size, static_cast<std::byte>(t));
        std::this_thread::yield();
        ASSERT_TRUE(std::all_of(buffer->mapped(), buffer->mapped() + size,
                                [t](std::byte b) { return b == static_cast<std::byte>(t); }));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(open.buffers->counters().buffers_in_use, 0u);
}

NORMSERVE_ON_EVERY_DEVICE(BufferPoolTest);

}  // namespace
}  // namespace normserve::vulkan
