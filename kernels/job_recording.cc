#include "kernels/job_recording.h"

#include <cstring>
#include <utility>

namespace normserve {
namespace {

constexpr uint64_t kLevelTableBytes = kTreeLevels * sizeof(MergeTree::LevelWeights);

uint32_t CeilDivide(uint32_t a, uint32_t b) { return (a + b - 1) / b; }

}  // namespace

absl::StatusOr<std::vector<vulkan::TransferBuffer>> AcquireParameters(const DispatchPlan& plan,
                                                                      uint64_t floats_per_channel,
                                                                      vulkan::BufferPool& pool) {
  std::vector<vulkan::TransferBuffer> parameters;
  for (const PlanBlock& block : plan.blocks) {
    auto buffer = vulkan::TransferBuffer::Create(
        pool, kLevelTableBytes + static_cast<uint64_t>(block.channel_count) * floats_per_channel * sizeof(float),
        vulkan::TransferBuffer::Direction::kToDevice);
    if (!buffer.ok()) return buffer.status();
    std::memcpy(buffer->host_input(), plan.tree.weights.data(), kLevelTableBytes);
    parameters.push_back(*std::move(buffer));
  }
  return parameters;
}

float* ChannelParameters(const vulkan::TransferBuffer& parameters) {
  return reinterpret_cast<float*>(parameters.host_input() + kLevelTableBytes);
}

uint32_t SpatialOf(const BatchShape& shape, const DispatchPlan& plan, const PlanWindow& window) {
  const bool one_run = plan.one_run && plan.moments_access != Access::kColumns;
  return static_cast<uint32_t>(one_run ? window.value_count : shape.spatial_size);
}

std::array<uint32_t, 3> TileGrid(const DispatchPlan& plan, const PlanBlock& block, const PlanWindow& window) {
  const auto channels = static_cast<uint32_t>(block.channel_count);
  if (plan.moments_access != Access::kColumns) return {window.tile_count, channels, 1};
  return {CeilDivide(window.tile_count, plan.workgroup_size >> plan.columns_level),
          CeilDivide(channels, 1u << plan.columns_level), 1};
}

std::array<uint32_t, 3> SliceGrid(const DispatchPlan& plan, const PlanBlock& block, const PlanWindow& window) {
  const auto channels = static_cast<uint32_t>(block.channel_count);
  if (plan.normalise_access != Access::kColumns) return {window.slice_count, channels, 1};
  return {window.slice_count, CeilDivide(plan.paired ? channels / 2 : channels, 1u << plan.paired_columns_level), 1};
}

SlicePush SliceOf(const BatchShape& shape, const DispatchPlan& plan, const PlanBlock& block, const PlanWindow& window) {
  const auto channels = static_cast<uint32_t>(block.channel_count);
  const auto values = static_cast<uint32_t>(window.value_count);
  if (plan.normalise_access == Access::kColumns) {
    const uint32_t rows = plan.workgroup_size >> plan.paired_columns_level;
    return {.channels = channels,
            .spatial = 1,
            .window_length = values,
            .slice_length = window.slice_values,
            .step_address = rows * (plan.paired ? channels / 2 : channels),
            .step_spatial = 0,
            .columns_level = plan.paired_columns_level};
  }
  const uint32_t unit = plan.normalise_access == Access::kQuads ? 4 : 1;
  const uint32_t spatial = CeilDivide(SpatialOf(shape, plan, window), unit);
  return {.channels = channels,
          .spatial = spatial,
          .window_length = CeilDivide(values, unit),
          .slice_length = window.slice_values / unit,
          .step_address = plan.workgroup_size / spatial * channels * spatial + plan.workgroup_size % spatial,
          .step_spatial = plan.workgroup_size % spatial,
          .columns_level = 0};
}

}  // namespace normserve
