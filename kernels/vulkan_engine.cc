#include "kernels/vulkan_engine.h"

#include <utility>

#include "kernels/backward_recording.h"
#include "kernels/forward_recording.h"
#include "kernels/pipelines.h"
#include "kernels/vulkan/command_pool.h"
#include "kernels/vulkan/device.h"
#include "kernels/vulkan/submitter.h"

namespace normserve {
namespace {

// The tensor that says how a job is cut up.
const InputTensor& ShapingTensor(const ForwardJob& job) { return job.input; }
const InputTensor& ShapingTensor(const BackwardJob& job) { return job.grad_output; }

}  // namespace

// Members are destroyed from the last: the submitter completes what is in flight before anything else goes.
struct VulkanEngine::Runtime {
  std::unique_ptr<vulkan::Instance> instance;
  std::vector<vulkan::DeviceSnapshot> devices;
  vulkan::Selection selection;
  std::unique_ptr<vulkan::Device> device;
  std::unique_ptr<vulkan::BufferPool> pool;
  std::unique_ptr<vulkan::CommandPool> commands;
  std::unique_ptr<Pipelines> pipelines;
  PlanOptions plan_options;
  std::unique_ptr<vulkan::Submitter> submitter;
};

VulkanEngine::VulkanEngine(std::unique_ptr<Runtime> runtime) : runtime_(std::move(runtime)) {}

VulkanEngine::~VulkanEngine() = default;

absl::StatusOr<std::unique_ptr<VulkanEngine>> VulkanEngine::Create(const VulkanEngineOptions& options) {
  auto runtime = std::make_unique<Runtime>();
  auto instance = vulkan::Instance::Create(options.instance);
  if (!instance.ok()) return instance.status();
  runtime->instance = *std::move(instance);
  auto devices = vulkan::Enumerate(*runtime->instance);
  if (!devices.ok()) return devices.status();
  runtime->devices = *std::move(devices);
  auto selection = vulkan::SelectDevice(runtime->devices, options.selection);
  if (!selection.ok()) return selection.status();
  runtime->selection = *std::move(selection);
  auto device =
      vulkan::Device::Create(*runtime->instance, runtime->devices[runtime->selection.chosen], {.mask = options.mask});
  if (!device.ok()) return device.status();
  runtime->device = *std::move(device);
  auto pool = vulkan::BufferPool::Create(*runtime->device, options.pool);
  if (!pool.ok()) return pool.status();
  runtime->pool = *std::move(pool);
  runtime->commands = std::make_unique<vulkan::CommandPool>(*runtime->device);

  // The workgroup size is the device's, not the shape's, so any shape tells it.
  auto plan = PlanDispatches({.batch_size = 2}, ElementType::kFloat32, runtime->device->limits(), options.plan);
  if (!plan.ok()) return plan.status();
  runtime->pipelines = std::make_unique<Pipelines>(*runtime->device, plan->workgroup_size);
  runtime->plan_options = options.plan;
  auto submitter = vulkan::Submitter::Create(*runtime->device);
  if (!submitter.ok()) return submitter.status();
  runtime->submitter = *std::move(submitter);

  std::unique_ptr<VulkanEngine> engine(new VulkanEngine(std::move(runtime)));
  engine->WarmUp();
  return engine;
}

template <typename JobRecording, typename Job, typename Done>
void VulkanEngine::Submit(const PlanOptions& plan_options, Job job, Done done) {
  Runtime& runtime = *runtime_;
  const InputTensor& tensor = ShapingTensor(job);
  auto plan = PlanDispatches(tensor.shape, tensor.type, runtime.device->limits(), plan_options);
  if (!plan.ok()) return std::move(done)(plan.status());
  auto recording = JobRecording::Create(job, std::make_shared<const DispatchPlan>(*std::move(plan)),
                                        {*runtime.pipelines, *runtime.device, *runtime.pool, *runtime.commands});
  if (!recording.ok()) return std::move(done)(recording.status());
  vulkan::Recording commands = (*recording)->TakeCommands();
  // The job's tensors stay until it is over: the caller may want to look at them again.
  runtime.submitter->Submit(std::move(commands), [recording = *std::move(recording), job = std::move(job),
                                                  done = std::move(done)](absl::Status status) mutable {
    using Result = decltype(recording->TakeResult());
    Result result = status.ok() ? recording->TakeResult() : Result(std::move(status));
    recording.reset();  // what the caller does next finds all but the output back in the pool
    std::move(done)(std::move(result));
  });
}

void VulkanEngine::Forward(ForwardJob job, ForwardDone done) {
  Submit<ForwardRecording>(runtime_->plan_options, std::move(job), std::move(done));
}

void VulkanEngine::Backward(BackwardJob job, BackwardDone done) {
  Submit<BackwardRecording>(runtime_->plan_options, std::move(job), std::move(done));
}

// Drivers compile a pipeline at its first dispatch: small batches that reach each of them, computed in the background
// while the server starts. What goes wrong here will be said by the first request.
void VulkanEngine::WarmUp() {
  const BatchShape shapes[] = {
      {.batch_size = 2, .num_features = 2, .spatial_size = 16},  // Access::kRuns
      {.batch_size = 2, .num_features = 2, .spatial_size = 4},   // Access::kQuads
      {.batch_size = 2, .num_features = 2, .spatial_size = 3},   // Access::kScalar
      {.batch_size = 2, .num_features = 2, .spatial_size = 1},   // Access::kColumns
  };
  const auto parameters = std::make_shared<AffineParameters>(AffineParameters{.weight = {1, 1}, .bias = {0, 0}});
  const auto given =
      std::make_shared<NormalizationStatistics>(NormalizationStatistics{.mean = {0, 0}, .variance = {1, 1}});
  for (const BatchShape& shape : shapes) {
    auto values = std::make_shared<std::vector<std::byte>>(static_cast<size_t>(shape.SizeBytes(ElementType::kFloat32)));
    ForwardJob job{.input = {.shape = shape, .pieces = {absl::MakeConstSpan(*values)}, .owner = values},
                   .parameters = parameters};
    PlanOptions plan = runtime_->plan_options;
    auto submit = [&](const ForwardJob& warm) { Submit<ForwardRecording>(plan, warm, ForwardDone([](auto) {})); };
    for (plan.lane_level = 0; plan.lane_level < 2; ++plan.lane_level) submit(job);
    job.given = given;
    submit(job);
  }
}

const std::vector<vulkan::DeviceSnapshot>& VulkanEngine::devices() const { return runtime_->devices; }
const vulkan::Selection& VulkanEngine::selection() const { return runtime_->selection; }
const vulkan::DeviceLimits& VulkanEngine::limits() const { return runtime_->device->limits(); }
vulkan::BufferPoolCounters VulkanEngine::pool_counters() const { return runtime_->pool->counters(); }
std::vector<std::string> VulkanEngine::validation_messages() const { return runtime_->instance->validation_messages(); }

}  // namespace normserve
