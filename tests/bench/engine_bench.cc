// What the engine makes of one batch of ResNet-50's second stage, and what the device's memory would allow.
// Run by engine.py, which puts PyTorch beside it.
#include <benchmark/benchmark.h>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/synchronization/notification.h"
#include "kernels/host_tensor.h"
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

constexpr const char* kTypeNames[] = {"FLOAT32", "FLOAT16", "BFLOAT16"};

InputTensor MakeTensor(ElementType type, bool channels_last, unsigned seed) {
  std::vector<float> values(static_cast<size_t>(kShape.NumValues()));
  std::mt19937 random(seed);
  for (float& value : values) value = std::normal_distribution<float>()(random);
  OutputTensor tensor = WriteTensor(type, values);
  BatchShape shape = kShape;
  if (channels_last) shape = {kShape.ValuesPerChannel(), kShape.num_features, 1};
  return {.shape = shape, .type = type, .pieces = std::move(tensor.pieces), .owner = std::move(tensor.owner)};
}

std::shared_ptr<const AffineParameters> Parameters() {
  const auto channels = static_cast<size_t>(kShape.num_features);
  return std::make_shared<AffineParameters>(
      AffineParameters{.weight = std::vector<float>(channels, 1), .bias = std::vector<float>(channels, 0)});
}

std::shared_ptr<const NormalizationStatistics> Statistics() {
  const auto channels = static_cast<size_t>(kShape.num_features);
  return std::make_shared<NormalizationStatistics>(NormalizationStatistics{
      .mean = std::vector<double>(channels, 0.1), .variance = std::vector<double>(channels, 1)});
}

// From bytes in host memory to bytes in host memory: the copy to the device counts.
void Forward(benchmark::State& state, bool training, ElementType type, bool channels_last) {
  VulkanEngine& engine = SharedEngine();
  const InputTensor input = MakeTensor(type, channels_last, 1);
  const auto parameters = Parameters();
  const auto running = Statistics();
  for (auto _ : state) {
    ForwardJob job{.input = input, .parameters = parameters};
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

// Of a training Forward whose input was kept: the gradient is copied to the device, the input is there.
void Backward(benchmark::State& state, ElementType type, bool channels_last) {
  VulkanEngine& engine = SharedEngine();
  const InputTensor gradient = MakeTensor(type, channels_last, 2);
  const auto parameters = Parameters();
  const auto used = Statistics();
  std::shared_ptr<const KeptInput> kept;
  {
    absl::Notification finished;
    ForwardJob job{.input = MakeTensor(type, channels_last, 1), .parameters = parameters, .keep_input = true};
    engine.Forward(std::move(job), [&](absl::StatusOr<ForwardResult> result) {
      kept = OrDie(std::move(result)).kept_input;
      finished.Notify();
    });
    finished.WaitForNotification();
  }
  for (auto _ : state) {
    BackwardJob job{.grad_output = gradient, .kept_input = kept, .parameters = parameters, .normalization = used};
    absl::Notification finished;
    absl::Status status;
    engine.Backward(std::move(job), [&](absl::StatusOr<BackwardResult> result) {
      status = result.status();
      finished.Notify();
    });
    finished.WaitForNotification();
    if (!status.ok()) state.SkipWithError(std::string(status.message()).c_str());
  }
}

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

void Register(const std::string& name, std::function<void(benchmark::State&)> run) {
  benchmark::RegisterBenchmark(name.c_str(), run)->Unit(benchmark::kMillisecond)->UseRealTime();
}

// "Train FLOAT16 last", and so on.
void RegisterAll() {
  for (ElementType type : {ElementType::kFloat32, ElementType::kFloat16, ElementType::kBFloat16}) {
    for (const bool last : {false, true}) {
      const std::string suffix = std::string(" ") + kTypeNames[static_cast<size_t>(type)] + (last ? " last" : " first");
      Register("Train" + suffix, [=](benchmark::State& state) { Forward(state, true, type, last); });
      Register("Eval" + suffix, [=](benchmark::State& state) { Forward(state, false, type, last); });
      Register("Backward" + suffix, [=](benchmark::State& state) { Backward(state, type, last); });
    }
  }
}

BENCHMARK(CopyShader)->Unit(benchmark::kMillisecond)->UseRealTime();

}  // namespace
}  // namespace normserve

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return EXIT_FAILURE;
  benchmark::AddCustomContext("device", normserve::SharedEngine().limits().name);
  normserve::RegisterAll();
  benchmark::RunSpecifiedBenchmarks();
  return EXIT_SUCCESS;
}
