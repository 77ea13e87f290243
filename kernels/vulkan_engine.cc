#include "kernels/vulkan_engine.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/backward_recording.h"
#include "kernels/bit_model.h"
#include "kernels/error_reason.h"
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

absl::Status TestFailed(const ShaderVariant& variant, absl::string_view device) {
  return MakeError(
      absl::StatusCode::kFailedPrecondition, ErrorReason::kSelfTestFailed,
      absl::StrCat("device \"", device, "\" does not compute what it should (shaders: ", VariantName(variant),
                   "), so its results are not used: update its driver, or choose another "
                   "device with --device"),
      {{"device", std::string(device)}, {"variant", VariantName(variant)}});
}

}  // namespace

// Members are destroyed from the last: the submitter completes what is in flight before anything else goes.
struct VulkanEngine::Runtime {
  explicit Runtime(const VulkanEngineOptions& options)
      : self_test(options.make_model ? options.make_model() : std::make_unique<BitModelEngine>()) {}

  std::unique_ptr<vulkan::Instance> instance;
  std::vector<vulkan::DeviceSnapshot> devices;
  vulkan::Selection selection;
  std::unique_ptr<vulkan::Device> device;
  std::unique_ptr<vulkan::BufferPool> pool;
  std::unique_ptr<vulkan::CommandPool> commands;
  std::unique_ptr<Pipelines> pipelines;
  PlanOptions plan_options;
  SelfTest self_test;
  std::unique_ptr<vulkan::Submitter> submitter;
};

VulkanEngine::VulkanEngine(std::unique_ptr<Runtime> runtime) : runtime_(std::move(runtime)) {}

VulkanEngine::~VulkanEngine() = default;

absl::StatusOr<std::unique_ptr<VulkanEngine>> VulkanEngine::Create(const VulkanEngineOptions& options) {
  auto runtime = std::make_unique<Runtime>(options);
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

void VulkanEngine::BeginTest(const ShaderVariant& variant, const PlanOptions& plan_options) {
  runtime_->self_test.Begin(
      variant,
      [&](ForwardJob job, ForwardDone done) {
        Submit<ForwardRecording>(plan_options, std::move(job), std::move(done));
      },
      [&](BackwardJob job, BackwardDone done) {
        Submit<BackwardRecording>(plan_options, std::move(job), std::move(done));
      });
}

// Jobs are over in the order that they are queued, so the variant's test is when this job is.
template <typename JobRecording, typename Result, typename Job, typename Done>
void VulkanEngine::SubmitTested(bool backward, Job job, Done done) {
  Runtime& runtime = *runtime_;
  const InputTensor& tensor = ShapingTensor(job);
  const auto plan = PlanDispatches(tensor.shape, tensor.type, runtime.device->limits(), runtime.plan_options);
  if (!plan.ok()) return std::move(done)(plan.status());
  const ShaderVariant variant = {.backward = backward, .access = plan->moments_access, .type = tensor.type};
  BeginTest(variant, runtime.plan_options);
  Submit<JobRecording>(runtime.plan_options, std::move(job),
                       Done([this, variant, done = std::move(done)](absl::StatusOr<Result> result) mutable {
                         const SelfTestResult test = runtime_->self_test.result(variant);
                         if (result.ok() && test == SelfTestResult::kFailed) {
                           result = TestFailed(variant, limits().name);
                         } else if (absl::Status why = runtime_->self_test.not_run(variant);
                                    result.ok() && test == SelfTestResult::kPending && !why.ok()) {
                           result = std::move(why);  // not used unverified; the next job has the test run again
                         }
                         std::move(done)(std::move(result));
                       }));
}

void VulkanEngine::Forward(ForwardJob job, ForwardDone done) {
  SubmitTested<ForwardRecording, ForwardResult>(/*backward=*/false, std::move(job), std::move(done));
}

void VulkanEngine::Backward(BackwardJob job, BackwardDone done) {
  SubmitTested<BackwardRecording, BackwardResult>(/*backward=*/true, std::move(job), std::move(done));
}

// Drivers compile a pipeline at its first dispatch: the tests of what is most likely to be asked for reach each of
// them, in the background while the server starts.
void VulkanEngine::WarmUp() {
  for (Access access : {Access::kRuns, Access::kQuads, Access::kScalar, Access::kColumns}) {
    BeginTest({.access = access}, runtime_->plan_options);
  }
}

SelfTestReport VulkanEngine::self_test_report() const { return runtime_->self_test.Report(); }
const std::vector<vulkan::DeviceSnapshot>& VulkanEngine::devices() const { return runtime_->devices; }
const vulkan::Selection& VulkanEngine::selection() const { return runtime_->selection; }
const vulkan::DeviceLimits& VulkanEngine::limits() const { return runtime_->device->limits(); }
vulkan::BufferPoolCounters VulkanEngine::pool_counters() const { return runtime_->pool->counters(); }
std::vector<std::string> VulkanEngine::validation_messages() const { return runtime_->instance->validation_messages(); }

}  // namespace normserve
