// Tests that run once on every Vulkan device of the machine, under the validation layer.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "kernels/vulkan/buffer_pool.h"
#include "kernels/vulkan/command_pool.h"
#include "kernels/vulkan/device.h"
#include "kernels/vulkan/pipeline.h"
#include "kernels/vulkan/recorder.h"
#include "kernels/vulkan/submitter.h"

namespace normserve::vulkan {

// Every device of the machine that can be used.
std::vector<DeviceSnapshot> UsableDevices();

// A device name as it may stand in a test's name.
std::string DeviceTestName(const testing::TestParamInfo<DeviceSnapshot>& info);

// Those of scale_add, by its second specialisation constant; made by ScaleAdd.
struct ScaleAddPipelines {
  absl::Mutex mutex;
  std::map<uint32_t, std::unique_ptr<ComputePipeline>> made ABSL_GUARDED_BY(mutex);
};

// One opened device with everything that work on it needs, taken down in the right order.
struct OpenDevice {
  std::unique_ptr<Device> device;
  std::unique_ptr<BufferPool> buffers;
  std::unique_ptr<CommandPool> commands;
  std::unique_ptr<ScaleAddPipelines> pipelines;
  std::unique_ptr<Submitter> submitter;
};

// Parameter: the device.
class DeviceTest : public testing::TestWithParam<DeviceSnapshot> {
 protected:
  // Opens the device on the validated instance; ends the program if that fails.
  OpenDevice Open(const DeviceOptions& options = {}, const BufferPoolOptions& pool = {.poison = true},
                  SubmitterOptions submitter = {}) const;
};

// y = a * x + b over `count` floats (shaders/scale_add.comp).
struct ScaleAddPush {
  float a = 1;
  float b = 0;
  uint32_t count = 0;
};

// The pipeline of scale_add with workgroups of 64.
const ComputePipeline& ScaleAdd(const OpenDevice& open, uint32_t extra = 0);

// Records one dispatch of it.
void DispatchScaleAdd(CommandRecorder& recorder, const OpenDevice& open, const BufferBinding& x, const BufferBinding& y,
                      const ScaleAddPush& push);

// Records nothing but y = a * x + b, each buffer as a whole.
Recording RecordScaleAdd(const OpenDevice& open, const std::shared_ptr<Buffer>& x, const std::shared_ptr<Buffer>& y,
                         const ScaleAddPush& push);

// Submits and waits for `done`; its status.
absl::Status SubmitAndWait(const OpenDevice& open, Recording recording);

// A value or the end of the test program with the status.
template <typename Value>
Value OrDie(absl::StatusOr<Value> value) {
  if (!value.ok()) {
    std::fprintf(stderr, "%s\n", value.status().ToString().c_str());
    std::abort();
  }
  return *std::move(value);
}

}  // namespace normserve::vulkan

#define NORMSERVE_ON_EVERY_DEVICE(fixture)                                                           \
  INSTANTIATE_TEST_SUITE_P(Device, fixture, testing::ValuesIn(::normserve::vulkan::UsableDevices()), \
                           ::normserve::vulkan::DeviceTestName)
