// The engine on a Vulkan device.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/dispatch_plan.h"
#include "kernels/engine.h"
#include "kernels/self_test.h"
#include "kernels/vulkan/buffer_pool.h"
#include "kernels/vulkan/device_mask.h"
#include "kernels/vulkan/device_selection.h"
#include "kernels/vulkan/instance.h"

namespace normserve {

struct VulkanEngineOptions {
  // Which device; empty: the best.
  vulkan::SelectionOptions selection;
  // What to make it look like. Empty: itself.
  vulkan::DeviceMask mask;
  // Validation layer, and who hears of its messages.
  vulkan::InstanceOptions instance;
  vulkan::BufferPoolOptions pool;
  // Fixes what the planner would choose; for tests and measurements.
  PlanOptions plan;
  // What the self-test takes for right. Empty: BitModelEngine. For tests.
  std::function<std::unique_ptr<Engine>()> make_model;
};

// Batch norm by compute shaders. All arithmetic on the device is addition, subtraction and multiplication in an
// order that the shape alone decides, so that devices agree to the bit (subnormals and NaN payloads apart).
//
// Thread-safe. Outputs must be dropped before the engine is.
class VulkanEngine : public Engine {
 public:
  // Chooses and opens a device, makes every pipeline and starts to warm them up.
  // FAILED_PRECONDITION, NOT_FOUND: no device that will do; the message lists what is there and what to do.
  static absl::StatusOr<std::unique_ptr<VulkanEngine>> Create(const VulkanEngineOptions& options);
  ~VulkanEngine() override;

  void Forward(ForwardJob job, ForwardDone done) override;
  void Backward(BackwardJob job, BackwardDone done) override;

  // All devices that the loader reports, and why each was chosen or not.
  const std::vector<vulkan::DeviceSnapshot>& devices() const;
  const vulkan::Selection& selection() const;
  // The limits of the chosen device, after the mask.
  const vulkan::DeviceLimits& limits() const;
  vulkan::BufferPoolCounters pool_counters() const;
  // Which variants were used and found right. A job of a variant that failed answers FAILED_PRECONDITION
  // (SELF_TEST_FAILED).
  SelfTestReport self_test_report() const;
  // What the validation layer has said so far, if it is on.
  std::vector<std::string> validation_messages() const;

 private:
  struct Runtime;
  explicit VulkanEngine(std::unique_ptr<Runtime> runtime);
  void WarmUp();
  void BeginTest(const ShaderVariant& variant, const PlanOptions& plan_options);
  template <typename JobRecording, typename Result, typename Job, typename Done>
  void SubmitTested(bool backward, Job job, Done done);
  template <typename JobRecording, typename Job, typename Done>
  void Submit(const PlanOptions& plan_options, Job job, Done done);

  const std::unique_ptr<Runtime> runtime_;
};

}  // namespace normserve
