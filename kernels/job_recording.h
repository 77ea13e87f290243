// What the recordings of all jobs share.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/dispatch_plan.h"
#include "kernels/pipelines.h"
#include "kernels/vulkan/buffer_pool.h"
#include "kernels/vulkan/command_pool.h"
#include "kernels/vulkan/device.h"
#include "kernels/vulkan/transfer_buffer.h"

namespace normserve {

// What a recording is made with. All outlive the job.
struct JobResources {
  Pipelines& pipelines;
  vulkan::Device& device;
  vulkan::BufferPool& pool;
  vulkan::CommandPool& commands;
};

// A buffer for each block of `plan`: the weights of the merge tree's levels, filled in, then room for
// `floats_per_channel` of each channel. Errors as BufferPool::Acquire.
absl::StatusOr<std::vector<vulkan::TransferBuffer>> AcquireParameters(const DispatchPlan& plan,
                                                                      uint64_t floats_per_channel,
                                                                      vulkan::BufferPool& pool);
// Where a channel's part of such a buffer begins.
float* ChannelParameters(const vulkan::TransferBuffer& parameters);

// What a shader takes for S: all of a window where its channel is one run.
uint32_t SpatialOf(const BatchShape& shape, const DispatchPlan& plan, const PlanWindow& window);

// The grid of a shader that reduces `window`'s tiles.
std::array<uint32_t, 3> TileGrid(const DispatchPlan& plan, const PlanBlock& block, const PlanWindow& window);
// Grid and push constants of a shader that goes through `window`'s values.
std::array<uint32_t, 3> SliceGrid(const DispatchPlan& plan, const PlanBlock& block, const PlanWindow& window);
SlicePush SliceOf(const BatchShape& shape, const DispatchPlan& plan, const PlanBlock& block, const PlanWindow& window);

}  // namespace normserve
