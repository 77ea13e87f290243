#include "kernels/forward_pipelines.h"

#include <utility>

#include "kernels/shaders/merge.spv.h"
#include "kernels/shaders/moments.spv.h"
#include "kernels/shaders/normalise.spv.h"

namespace normserve {
namespace {

const vulkan::Shader kMoments = {"moments", kMomentsSpirv, 3, sizeof(MomentsPush)};
const vulkan::Shader kMerge = {"merge", kMergeSpirv, 2, sizeof(MergePush)};
const vulkan::Shader kNormalise = {"normalise", kNormaliseSpirv, 4, sizeof(NormalisePush)};

}  // namespace

absl::StatusOr<std::unique_ptr<ForwardPipelines>> ForwardPipelines::Create(vulkan::Device& device,
                                                                           uint32_t workgroup_size) {
  std::unique_ptr<ForwardPipelines> made(new ForwardPipelines(workgroup_size));
  absl::Status status;
  auto make = [&](const vulkan::Shader& shader, std::vector<uint32_t> constants) -> Pipeline {
    if (!status.ok()) return nullptr;
    auto pipeline = vulkan::ComputePipeline::Create(device, shader, constants);
    status = pipeline.status();
    return pipeline.ok() ? *std::move(pipeline) : nullptr;
  };
  for (uint32_t access = 0; access < 3; ++access) {
    if (!device.limits().is_cpu) made->moments_[access][0] = make(kMoments, {workgroup_size, 0, access});
    made->moments_[access][1] = make(kMoments, {workgroup_size, kMaxLaneLevel, access});
  }
  made->merge_ = make(kMerge, {workgroup_size});
  for (uint32_t from_nodes = 0; from_nodes < 2; ++from_nodes) {
    for (uint32_t quads = 0; quads < 2; ++quads) {
      made->normalise_[from_nodes][quads] = make(kNormalise, {workgroup_size, from_nodes, quads});
    }
  }
  if (!status.ok()) return status;
  return made;
}

}  // namespace normserve
