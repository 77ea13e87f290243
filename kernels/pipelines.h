// Every pipeline that a Forward or a Backward can need.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "kernels/dispatch_plan.h"
#include "kernels/vulkan/device.h"
#include "kernels/vulkan/pipeline.h"

namespace normserve {

// The push constants of each shader, member by member as it declares them.
struct MomentsPush {
  uint32_t channels, spatial, chunks, full_chunks, ragged_values;
  float ragged_share;
  uint32_t window_tile, tiles, lane_level, columns_level;
};
struct GradientSumsPush {
  uint32_t channels, spatial, chunks, full_chunks, ragged_values, window_tile, tiles, lane_level, columns_level;
};
struct MergePush {
  uint32_t chunks, full_chunks, first_in, count_in, first_out, level;
};
// How normalise and gradient_input go through a window (shaders/tensor_slice.glsl).
struct SlicePush {
  uint32_t channels, spatial, window_length, slice_length, step_address, step_spatial, columns_level;
};
struct NormalisePush {
  SlicePush slice;
  uint32_t chunks, full_chunks, first_in, count_in, first_out, level;
  float count_share, epsilon;
};
struct GradientInputPush {
  SlicePush slice;
  uint32_t chunks, first_in, count_in, first_out, level;
  float share_hi, share_lo;
};

template <typename Push>
absl::Span<const std::byte> PushBytes(const Push& push) {
  return {reinterpret_cast<const std::byte*>(&push), sizeof(Push)};
}

// The pipelines of one workgroup size, each made when it is first asked for and kept: they depend on a shader, its
// variant and the element type, never on a shape, so that there are a few dozen at most. Drivers compile a pipeline
// when it is made or first used, which takes up to a second on a CPU driver with a cold cache; what the engine warms
// up when it starts is not waited for later.
//
// Thread-safe. The device outlives it.
class Pipelines {
 public:
  using PipelineOr = absl::StatusOr<const vulkan::ComputePipeline*>;

  Pipelines(vulkan::Device& device, uint32_t workgroup_size) : device_(device), workgroup_size_(workgroup_size) {}

  uint32_t workgroup_size() const { return workgroup_size_; }

  // Errors: what the driver says. The pointers stay valid as long as this object.
  PipelineOr moments(const DispatchPlan& plan, ElementType type);
  PipelineOr gradient_sums(const DispatchPlan& plan, ElementType type, bool from_batch);
  PipelineOr merge();
  PipelineOr merge_gradients();
  PipelineOr normalise(const DispatchPlan& plan, ElementType type, bool from_nodes);
  PipelineOr gradient_input(const DispatchPlan& plan, ElementType type, bool from_batch);

 private:
  // Specialisation constants after the workgroup size.
  using Constants = std::vector<uint32_t>;

  PipelineOr Get(const vulkan::Shader& shader, Constants constants);
  uint32_t MaxLaneLevel(const DispatchPlan& plan) const;

  vulkan::Device& device_;
  const uint32_t workgroup_size_;
  absl::Mutex mutex_;
  // By the shader's first word and constants.
  std::map<std::pair<const uint32_t*, Constants>, std::unique_ptr<vulkan::ComputePipeline>> made_
      ABSL_GUARDED_BY(mutex_);
};

}  // namespace normserve
