// A small shader gives the right numbers, on every device and by every path to it.
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "tests/unit/vulkan/device_test_fixture.h"

namespace normserve::vulkan {
namespace {

class ComputeTest : public DeviceTest {
 protected:
  static std::vector<float> Ramp(size_t count) {
    std::vector<float> values(count);
    for (size_t i = 0; i < count; ++i) values[i] = static_cast<float>(i % 1000) - 500.0f;
    return values;
  }

  // y = 3 x + 2 by way of upload and readback buffers where device buffers are not mapped.
  static std::vector<float> Compute(const OpenDevice& open, const std::vector<float>& x) {
    const uint64_t size = x.size() * sizeof(float);
    const bool mapped = open.device->limits().unified_memory;
    auto device_x = OrDie(open.buffers->Acquire(size, BufferUsage::kDevice));
    auto device_y = OrDie(open.buffers->Acquire(size, BufferUsage::kDevice));
    EXPECT_EQ(device_x->mapped() != nullptr, mapped);
    auto host_x = mapped ? device_x : OrDie(open.buffers->Acquire(size, BufferUsage::kUpload));
    auto host_y = mapped ? device_y : OrDie(open.buffers->Acquire(size, BufferUsage::kReadback));
    std::memcpy(host_x->mapped(), x.data(), size);
    EXPECT_TRUE(host_x->Flush().ok());

    CommandRecorder recorder = OrDie(CommandRecorder::Begin(*open.device, *open.commands));
    if (!mapped) {
      recorder.CopyBuffer(host_x, 0, device_x, 0, size);
      recorder.Barrier();
    }
    DispatchScaleAdd(recorder, open, {device_x}, {device_y}, {3, 2, static_cast<uint32_t>(x.size())});
    if (!mapped) {
      recorder.Barrier();
      recorder.CopyBuffer(device_y, 0, host_y, 0, size);
    }
    absl::Status status = SubmitAndWait(open, OrDie(std::move(recorder).Finish()));
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_TRUE(host_y->Invalidate().ok());
    std::vector<float> y(x.size());
    std::memcpy(y.data(), host_y->mapped(), size);
    return y;
  }
};

TEST_P(ComputeTest, EveryPathGivesTheSameRightNumbers) {
  for (const std::string mask :
       {"", "no_push_descriptors", "staging", "staging,no_push_descriptors", "no_float_controls"}) {
    SCOPED_TRACE(mask);
    const OpenDevice open = Open({.mask = OrDie(ParseDeviceMask(mask))});
    EXPECT_EQ(open.device->push_descriptors(), GetParam().push_descriptor && mask.find("no_push") == mask.npos);
    for (size_t count : {size_t{1}, size_t{63}, size_t{100003}}) {
      const std::vector<float> x = Ramp(count);
      const std::vector<float> y = Compute(open, x);
      for (size_t i = 0; i < count; ++i) ASSERT_EQ(y[i], 3 * x[i] + 2) << i;
    }
  }
}

TEST_P(ComputeTest, ADispatchAfterABarrierSeesWhatTheOneBeforeWrote) {
  for (const std::string mask : {"", "no_push_descriptors"}) {
    SCOPED_TRACE(mask);
    const OpenDevice open = Open({.mask = OrDie(ParseDeviceMask(mask))});
    auto x = OrDie(open.buffers->Acquire(4096, BufferUsage::kDevice));
    auto y = OrDie(open.buffers->Acquire(4096, BufferUsage::kDevice));
    ASSERT_NE(x->mapped(), nullptr);
    std::memset(x->mapped(), 0, 4096);
    CommandRecorder recorder = OrDie(CommandRecorder::Begin(*open.device, *open.commands));
    // More dispatches than one descriptor pool has sets for.
    for (int i = 0; i < 100; ++i) {
      DispatchScaleAdd(recorder, open, {x}, {y}, {1, 1, 1024});
      recorder.Barrier();
      DispatchScaleAdd(recorder, open, {y}, {x}, {1, 1, 1024});
      recorder.Barrier();
    }
    ASSERT_TRUE(SubmitAndWait(open, OrDie(std::move(recorder).Finish())).ok());
    const float* values = reinterpret_cast<const float*>(x->mapped());
    for (int i = 0; i < 1024; ++i) ASSERT_EQ(values[i], 200.0f) << i;
  }
}

TEST_P(ComputeTest, ABindingShowsOnlyItsWindow) {
  const OpenDevice open = Open({.mask = OrDie(ParseDeviceMask("max_storage_buffer_range=4096"))});
  ASSERT_EQ(open.device->limits().max_storage_buffer_range, 4096u);
  auto x = OrDie(open.buffers->Acquire(16384, BufferUsage::kDevice));
  auto y = OrDie(open.buffers->Acquire(16384, BufferUsage::kDevice));
  std::memset(y->mapped(), 0, 16384);
  float* in = reinterpret_cast<float*>(x->mapped());
  for (int i = 0; i < 4096; ++i) in[i] = static_cast<float>(i);
  CommandRecorder recorder = OrDie(CommandRecorder::Begin(*open.device, *open.commands));
  DispatchScaleAdd(recorder, open, {x, 4096, 4096}, {y, 8192, 4096}, {1, 0, 1024});
  ASSERT_TRUE(SubmitAndWait(open, OrDie(std::move(recorder).Finish())).ok());
  const float* out = reinterpret_cast<const float*>(y->mapped());
  for (int i = 0; i < 4096; ++i) {
    ASSERT_EQ(out[i], i >= 2048 && i < 3072 ? static_cast<float>(i - 1024) : 0.0f) << i;
  }
}

TEST_P(ComputeTest, ABindingBeyondTheDevicesLimitEndsTheProcess) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const OpenDevice open = Open({.mask = OrDie(ParseDeviceMask("max_storage_buffer_range=4096"))});
  auto x = OrDie(open.buffers->Acquire(16384, BufferUsage::kDevice));
  EXPECT_DEATH(RecordScaleAdd(open, x, x, {1, 0, 1024}), "max_storage_buffer_range");
}

TEST_P(ComputeTest, SpecialisationConstantsMakePipelinesOfTheirOwn) {
  const OpenDevice open = Open();
  const ComputePipeline& plain = ScaleAdd(open, 0);
  const ComputePipeline& seven = ScaleAdd(open, 7);
  EXPECT_NE(&plain, &seven);

  auto x = OrDie(open.buffers->Acquire(4, BufferUsage::kDevice));
  auto y = OrDie(open.buffers->Acquire(4, BufferUsage::kDevice));
  const float one = 1;
  std::memcpy(x->mapped(), &one, sizeof one);
  const ScaleAddPush push = {1, 0, 1};
  CommandRecorder recorder = OrDie(CommandRecorder::Begin(*open.device, *open.commands));
  recorder.Dispatch(seven, {{x}, {y}}, absl::MakeConstSpan(reinterpret_cast<const std::byte*>(&push), sizeof push),
                    {1, 1, 1});
  ASSERT_TRUE(SubmitAndWait(open, OrDie(std::move(recorder).Finish())).ok());
  float result = 0;
  std::memcpy(&result, y->mapped(), sizeof result);
  EXPECT_EQ(result, 8.0f);
}

TEST_P(ComputeTest, CommandBuffersAndDescriptorPoolsAreUsedAgain) {
  static PFN_vkCreateDescriptorPool create;
  static int pools;
  pools = 0;
  DeviceOptions options = {.mask = OrDie(ParseDeviceMask("no_push_descriptors"))};
  options.replace_functions = [](VolkDeviceTable& vk) {
    create = vk.vkCreateDescriptorPool;
    vk.vkCreateDescriptorPool = [](VkDevice device, const VkDescriptorPoolCreateInfo* info,
                                   const VkAllocationCallbacks* callbacks, VkDescriptorPool* pool) -> VkResult {
      ++pools;
      return create(device, info, callbacks, pool);
    };
  };
  const OpenDevice open = Open(options);
  auto x = OrDie(open.buffers->Acquire(4096, BufferUsage::kDevice));
  auto y = OrDie(open.buffers->Acquire(4096, BufferUsage::kDevice));
  for (int i = 0; i < 600; ++i) ASSERT_TRUE(SubmitAndWait(open, RecordScaleAdd(open, x, y, {1, 0, 1024})).ok());
  EXPECT_EQ(open.commands->size(), 1u);
  EXPECT_EQ(pools, 1);
}

NORMSERVE_ON_EVERY_DEVICE(ComputeTest);

TEST(DevicesTest, TwoIndependentDriversAreThere) { EXPECT_GE(UsableDevices().size(), 2u); }

}  // namespace
}  // namespace normserve::vulkan
