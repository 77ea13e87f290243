// Every pipeline that a Forward can need, made once.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/dispatch_plan.h"
#include "kernels/vulkan/device.h"
#include "kernels/vulkan/pipeline.h"

namespace normserve {

// The push constants of each shader, member by member as it declares them.
struct MomentsPush {
  uint32_t channels, spatial, chunks, full_chunks, ragged_values;
  float ragged_share;
  uint32_t window_tile, tiles, lane_level;
};
struct MergePush {
  uint32_t chunks, full_chunks, first_in, count_in, first_out, level;
};
struct NormalisePush {
  uint32_t channels, spatial, window_length, slice_length, step_address, step_spatial, chunks, full_chunks, first_in,
      count_in, first_out, level;
  float count_share, epsilon;
};

// Eleven pipelines for one workgroup size (eight on a CPU driver): none depends on a shape, so none is made while a
// request waits. Immutable, thread-safe. The device outlives it.
class ForwardPipelines {
 public:
  static absl::StatusOr<std::unique_ptr<ForwardPipelines>> Create(vulkan::Device& device, uint32_t workgroup_size);

  uint32_t workgroup_size() const { return workgroup_size_; }
  const vulkan::ComputePipeline& moments(Access access, uint32_t lane_level) const {
    const auto& by_level = moments_[static_cast<size_t>(access)];
    return lane_level == 0 && by_level[0] != nullptr ? *by_level[0] : *by_level[1];
  }
  const vulkan::ComputePipeline& merge() const { return *merge_; }
  const vulkan::ComputePipeline& normalise(bool from_nodes, Access access) const {
    return *normalise_[from_nodes][access != Access::kScalar];
  }

 private:
  using Pipeline = std::unique_ptr<vulkan::ComputePipeline>;
  explicit ForwardPipelines(uint32_t workgroup_size) : workgroup_size_(workgroup_size) {}

  const uint32_t workgroup_size_;
  // By access; [0] for lane_level 0 alone, which spares a GPU the memory for nodes that wait (null on a CPU driver,
  // where it would only cost the time to compile it), [1] for any.
  std::array<std::array<Pipeline, 2>, 3> moments_;
  Pipeline merge_;
  std::array<std::array<Pipeline, 2>, 2> normalise_;  // by from_nodes, by quads
};

}  // namespace normserve
