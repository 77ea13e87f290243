#include "kernels/pipelines.h"

#include <utility>
#include <vector>

#include "kernels/shaders/gradient_input.spv.h"
#include "kernels/shaders/gradient_sums.spv.h"
#include "kernels/shaders/merge.spv.h"
#include "kernels/shaders/merge_gradients.spv.h"
#include "kernels/shaders/moments.spv.h"
#include "kernels/shaders/normalise.spv.h"

namespace normserve {
namespace {

using Variants = absl::Span<const uint32_t>[4][3];

absl::Span<const uint32_t> Variant(const Variants& variants, Access access, ElementType type) {
  return variants[static_cast<size_t>(access)][static_cast<size_t>(type)];
}

}  // namespace

Pipelines::PipelineOr Pipelines::Get(const vulkan::Shader& shader, Constants constants) {
  constants.insert(constants.begin(), workgroup_size_);
  absl::MutexLock lock(&mutex_);
  std::unique_ptr<vulkan::ComputePipeline>& made = made_[{shader.spirv.data(), constants}];
  if (made == nullptr) {
    auto pipeline = vulkan::ComputePipeline::Create(device_, shader, constants);
    if (!pipeline.ok()) return pipeline.status();
    made = *std::move(pipeline);
  }
  return made.get();
}

// Not to wait for siblings spares a GPU the memory for them; on a CPU driver one more variant only costs the time to
// compile it.
uint32_t Pipelines::MaxLaneLevel(const DispatchPlan& plan) const {
  return plan.lane_level == 0 && !device_.limits().is_cpu ? 0 : kMaxLaneLevel;
}

Pipelines::PipelineOr Pipelines::moments(const DispatchPlan& plan, ElementType type) {
  return Get({"moments", Variant(kMomentsSpirv, plan.moments_access, type), 3, sizeof(MomentsPush)},
             {MaxLaneLevel(plan)});
}

Pipelines::PipelineOr Pipelines::gradient_sums(const DispatchPlan& plan, ElementType type, bool from_batch) {
  return Get({"gradient_sums", Variant(kGradientSumsSpirv, plan.moments_access, type), 4, sizeof(GradientSumsPush)},
             {MaxLaneLevel(plan), from_batch});
}

Pipelines::PipelineOr Pipelines::merge() { return Get({"merge", kMergeSpirv, 2, sizeof(MergePush)}, {}); }

Pipelines::PipelineOr Pipelines::merge_gradients() {
  return Get({"merge_gradients", kMergeGradientsSpirv, 2, sizeof(MergePush)}, {});
}

Pipelines::PipelineOr Pipelines::normalise(const DispatchPlan& plan, ElementType type, bool from_nodes) {
  return Get({"normalise", Variant(kNormaliseSpirv, plan.normalise_access, type), 4, sizeof(NormalisePush)},
             {from_nodes, plan.paired});
}

Pipelines::PipelineOr Pipelines::gradient_input(const DispatchPlan& plan, ElementType type, bool from_batch) {
  return Get(
      {"gradient_input", Variant(kGradientInputSpirv, plan.normalise_access, type), 4, sizeof(GradientInputPush)},
      {from_batch, plan.paired});
}

}  // namespace normserve
