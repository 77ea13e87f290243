// What the engine makes of one batch of ResNet-50's second stage, and what the device's memory would allow.
// Run by engine.py, which puts PyTorch beside it.
#include <benchmark/benchmark.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

#include "absl/synchronization/notification.h"
#include "kernels/shaders/copy.spv.h"
#include "kernels/vulkan/command_pool.h"
#include "kernels/vulkan/device.h"
#include "kernels/vulkan/pipeline.h"
#include "kernels/vulkan/recorder.h"
#include "kernels/vulkan/submitter.h"
#include "kernels/vulkan_engine.h"

namespace normserve {
namespace {

constexpr BatchShape kShape = {.batch_size = 32, .num_features = 64, .spatial_size = 56 * 56};

template <typename T>
T OrDie(absl::StatusOr<T> value) {
  if (!value.ok()) {
    std::fprintf(stderr, "engine_bench: %s\n", std::string(value.status().message()).c_str());
    std::exit(EXIT_FAILURE);
  }
  return *std::move(value);
}

// NORMSERVE_DEVICE chooses the device, as for the server.
vulkan::SelectionOptions DeviceChoice() {
  const char* device = std::getenv("NORMSERVE_DEVICE");
  return {.device = device == nullptr ? "" : device};
}

VulkanEngine& SharedEngine() {
  static VulkanEngine* engine = OrDie(VulkanEngine::Create({.selection = DeviceChoice()})).release();
  return *engine;
}

// From bytes in host memory to bytes in host memory: the copy to the device counts.
void Forward(benchmark::State& state, bool training) {
  VulkanEngine& engine = SharedEngine();
  const auto channels = static_cast<size_t>(kShape.num_features);
  auto values = std::make_shared<std::vector<float>>(static_cast<size_t>(kShape.NumValues()));
  std::mt19937 random(1);
  for (float& value : *values) value = std::normal_distribution<float>()(random);
  const auto parameters = std::make_shared<AffineParameters>(
      AffineParameters{.weight = std::vector<float>(channels, 1), .bias = std::vector<float>(channels, 0)});
  const auto running = std::make_shared<NormalizationStatistics>(NormalizationStatistics{
      .mean = std::vector<double>(channels, 0.1), .variance = std::vector<double>(channels, 1)});
  const absl::Span<const std::byte> bytes(reinterpret_cast<const std::byte*>(values->data()),
                                          static_cast<size_t>(kShape.SizeBytes(ElementType::kFloat32)));
  for (auto _ : state) {
    ForwardJob job{.input = {.shape = kShape, .pieces = {bytes}, .owner = values}, .parameters = parameters};
    if (!training) job.given = running;
    absl::Notification finished;
    absl::Status status;
    engine.Forward(std::move(job), [&](absl::StatusOr<ForwardResult> result) {
      status = result.status();
      finished.Notify();
    });
    finished.WaitForNotification();
    if (!status.ok()) state.SkipWithError(std::string(status.message()).c_str());
  }
}

void Train(benchmark::State& state) { Forward(state, true); }
void Eval(benchmark::State& state) { Forward(state, false); }

// The same bytes through a shader that only copies, without any copy from or to the host.
void CopyShader(benchmark::State& state) {
  const auto instance = OrDie(vulkan::Instance::Create());
  const auto devices = OrDie(vulkan::Enumerate(*instance));
  const auto selection = OrDie(vulkan::SelectDevice(devices, DeviceChoice()));
  const auto device = OrDie(vulkan::Device::Create(*instance, devices[selection.chosen]));
  const auto pool = OrDie(vulkan::BufferPool::Create(*device));
  vulkan::CommandPool commands(*device);
  // One that suits the device, as the engine's planner would choose.
  const uint32_t workgroup = device->limits().is_cpu ? 8 : 256;
  const uint32_t push[2] = {static_cast<uint32_t>(kShape.NumValues() / 4), device->limits().is_cpu ? 256u : 4u};
  const vulkan::Shader shader = {"copy", kCopySpirv, 2, sizeof(push)};
  const auto pipeline = OrDie(vulkan::ComputePipeline::Create(*device, shader, {workgroup}));
  const uint32_t groups = (push[0] + workgroup * push[1] - 1) / (workgroup * push[1]);
  const auto submitter = OrDie(vulkan::Submitter::Create(*device));
  const auto size_bytes = static_cast<uint64_t>(kShape.SizeBytes(ElementType::kFloat32));
  const auto in = OrDie(pool->Acquire(size_bytes, vulkan::BufferUsage::kDevice));
  const auto out = OrDie(pool->Acquire(size_bytes, vulkan::BufferUsage::kDevice));
  for (auto _ : state) {
    vulkan::CommandRecorder recorder = OrDie(vulkan::CommandRecorder::Begin(*device, commands));
    recorder.Dispatch(*pipeline, {{in}, {out}}, {reinterpret_cast<const std::byte*>(push), sizeof(push)},
                      {groups, 1, 1});
    absl::Notification finished;
    submitter->Submit(OrDie(std::move(recorder).Finish()), [&](absl::Status status) {
      if (!status.ok()) state.SkipWithError(std::string(status.message()).c_str());
      finished.Notify();
    });
    finished.WaitForNotification();
  }
}

BENCHMARK(Train)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(Eval)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(CopyShader)->Unit(benchmark::kMillisecond)->UseRealTime();

}  // namespace
}  // namespace normserve

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return EXIT_FAILURE;
  benchmark::AddCustomContext("device", normserve::SharedEngine().limits().name);
  benchmark::RunSpecifiedBenchmarks();
  return EXIT_SUCCESS;
}
