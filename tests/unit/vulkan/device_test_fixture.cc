#include "tests/unit/vulkan/device_test_fixture.h"

#include <cctype>
#include <cstdlib>
#include <utility>

#include "absl/synchronization/notification.h"
#include "kernels/shaders/scale_add.spv.h"
#include "tests/unit/vulkan/validation_guard.h"

namespace normserve::vulkan {

std::vector<DeviceSnapshot> UsableDevices() {
  auto instance = Instance::Create();
  if (!instance.ok()) return {};
  std::vector<DeviceSnapshot> usable;
  for (DeviceSnapshot& device : OrDie(Enumerate(**instance))) {
    if (MissingRequirements(device).empty()) usable.push_back(std::move(device));
  }
  return usable;
}

std::string DeviceTestName(const testing::TestParamInfo<DeviceSnapshot>& info) {
  std::string name = std::to_string(info.index) + "_";
  for (char c : info.param.name.substr(0, info.param.name.find(' '))) {
    if (std::isalnum(static_cast<unsigned char>(c))) name += c;
  }
  return name;
}

OpenDevice DeviceTest::Open(const DeviceOptions& options, const BufferPoolOptions& pool,
                            SubmitterOptions submitter) const {
  OpenDevice open;
  open.device = OrDie(Device::Create(ValidatedInstance(), GetParam(), options));
  open.buffers = OrDie(BufferPool::Create(*open.device, pool));
  open.commands = std::make_unique<CommandPool>(*open.device);
  open.pipelines = std::make_unique<ScaleAddPipelines>();
  open.submitter = OrDie(Submitter::Create(*open.device, std::move(submitter)));
  return open;
}

const ComputePipeline& ScaleAdd(const OpenDevice& open, uint32_t extra) {
  const Shader shader = {.id = "scale_add",
                         .spirv = kScaleAddSpirv,
                         .num_storage_buffers = 2,
                         .push_constant_bytes = sizeof(ScaleAddPush)};
  absl::MutexLock lock(&open.pipelines->mutex);
  auto& pipeline = open.pipelines->made[extra];
  if (pipeline == nullptr) pipeline = OrDie(ComputePipeline::Create(*open.device, shader, {64, extra}));
  return *pipeline;
}

void DispatchScaleAdd(CommandRecorder& recorder, const OpenDevice& open, const BufferBinding& x, const BufferBinding& y,
                      const ScaleAddPush& push) {
  recorder.Dispatch(ScaleAdd(open), {x, y}, absl::MakeConstSpan(reinterpret_cast<const std::byte*>(&push), sizeof push),
                    {(push.count + 63) / 64, 1, 1});
}

Recording RecordScaleAdd(const OpenDevice& open, const std::shared_ptr<Buffer>& x, const std::shared_ptr<Buffer>& y,
                         const ScaleAddPush& push) {
  CommandRecorder recorder = OrDie(CommandRecorder::Begin(*open.device, *open.commands));
  DispatchScaleAdd(recorder, open, {x}, {y}, push);
  return OrDie(std::move(recorder).Finish());
}

absl::Status SubmitAndWait(const OpenDevice& open, Recording recording) {
  absl::Notification over;
  absl::Status result;
  open.submitter->Submit(std::move(recording), [&](absl::Status status) {
    result = status;
    over.Notify();
  });
  over.WaitForNotification();
  return result;
}

}  // namespace normserve::vulkan
