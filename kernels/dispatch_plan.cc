#include "kernels/dispatch_plan.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/error_reason.h"

namespace normserve {
namespace {

// Of the larger kind, that of gradients.
constexpr int64_t kNodeBytes = 8 * sizeof(float);
constexpr int64_t kSharedNodeBytes = 8 * sizeof(float);
constexpr int64_t kConstantsBytes = 8 * sizeof(float);
constexpr int64_t kLevelTableBytes = kTreeLevels * sizeof(MergeTree::LevelWeights);
// A CPU driver runs few fat workgroups best, but needs some to fill its threads; a GPU wants many.
constexpr int64_t kCpuWorkgroups = 64;
constexpr int64_t kGpuWorkgroups = 2048;
// Steps of one invocation of normalise, beyond which a slice is not made longer.
constexpr int64_t kCpuStepsPerSlice = 256;
constexpr int64_t kGpuStepsPerSlice = 4;

int64_t CeilDivide(int64_t a, int64_t b) { return (a + b - 1) / b; }

absl::Status DoesNotFit(absl::string_view what) {
  return MakeError(absl::StatusCode::kResourceExhausted, ErrorReason::kDeviceMemory, what, {{"field", "input.shape"}});
}

uint32_t ChooseWorkgroupSize(const vulkan::DeviceLimits& limits) {
  const uint32_t wanted = limits.is_cpu ? std::max(limits.subgroup_size, 8u) : 256u;
  const uint32_t most = std::min({limits.max_workgroup_invocations, limits.max_workgroup_size_x,
                                  limits.max_shared_memory_bytes / static_cast<uint32_t>(kSharedNodeBytes)});
  return std::bit_floor(std::min(wanted, most));
}

absl::Status WorkgroupTooSmall(const vulkan::DeviceLimits& limits) {
  return MakeError(absl::StatusCode::kResourceExhausted, ErrorReason::kDeviceMemory,
                   absl::StrCat("the device allows a workgroup ", limits.max_workgroup_invocations, " invocations, ",
                                limits.max_workgroup_size_x, " of them along x, and ", limits.max_shared_memory_bytes,
                                " bytes of shared memory: at least 2, 2 and ", 2 * kSharedNodeBytes,
                                " are needed; take another device, or mask less (max_workgroup_invocations, "
                                "max_shared_memory_bytes)"),
                   {{"device", limits.name}});
}

// Level of a tile, above that of its workgroup: the smallest that leaves no more tiles than one workgroup merges; on a
// CPU driver the largest that leaves enough workgroups.
uint32_t ChooseLaneLevel(const BatchShape& shape, const MergeTree& tree, uint32_t workgroup_size, bool is_cpu) {
  int64_t most_tiles = workgroup_size;
  if (is_cpu) most_tiles = std::clamp<int64_t>(CeilDivide(kCpuWorkgroups, shape.num_features), 1, most_tiles);
  const int64_t chunks_per_lane = CeilDivide(tree.chunks, most_tiles * workgroup_size);
  return std::min(static_cast<uint32_t>(std::bit_width(static_cast<uint64_t>(chunks_per_lane - 1))), kMaxLaneLevel);
}

// kColumns: as many chunks to an invocation as leave enough of them to fill the device.
uint32_t ChooseColumnsLaneLevel(const BatchShape& shape, const MergeTree& tree, uint32_t workgroup_size, bool is_cpu) {
  const int64_t invocations = is_cpu ? kCpuWorkgroups * workgroup_size : kGpuWorkgroups * workgroup_size / 2;
  int64_t most_tiles = std::max<int64_t>(invocations / shape.num_features, 1);
  // On a CPU driver another dispatch costs more than it gains.
  if (is_cpu) most_tiles = std::min<int64_t>(most_tiles, kMaxSerialNodes);
  const int64_t chunks_per_lane = CeilDivide(tree.chunks, most_tiles);
  return std::min(static_cast<uint32_t>(std::bit_width(static_cast<uint64_t>(chunks_per_lane - 1))), kMaxLaneLevel);
}

// log2 of the columns that a workgroup takes: all of few, or as many as it has invocations.
uint32_t ColumnsLevel(int64_t columns, uint32_t workgroup_size) {
  return static_cast<uint32_t>(
      std::countr_zero(std::min(workgroup_size, static_cast<uint32_t>(std::bit_ceil(static_cast<uint64_t>(columns))))));
}

uint32_t SliceValues(const DispatchPlan& plan, int64_t window_values, int64_t channels,
                     const vulkan::DeviceLimits& limits) {
  int64_t step = static_cast<int64_t>(plan.workgroup_size) * (plan.normalise_access == Access::kQuads ? 4 : 1);
  if (plan.normalise_access == Access::kColumns) {
    // `channels` are then worked on by fewer workgroups than one each.
    step = plan.workgroup_size >> plan.paired_columns_level;
    channels = CeilDivide(plan.paired ? channels / 2 : channels, int64_t{1} << plan.paired_columns_level);
  }
  const int64_t wanted_workgroups = limits.is_cpu ? kCpuWorkgroups : kGpuWorkgroups;
  const int64_t most_steps = limits.is_cpu ? kCpuStepsPerSlice : kGpuStepsPerSlice;
  const int64_t all_steps = CeilDivide(window_values, step);
  int64_t steps = std::clamp<int64_t>(all_steps * channels / wanted_workgroups, 1, most_steps);
  steps = std::max(steps, CeilDivide(all_steps, limits.max_workgroup_count[0]));
  return static_cast<uint32_t>(steps * step);
}

}  // namespace

MergeTree MergeTree::Over(int64_t values_per_channel) {
  NORMSERVE_CHECK(values_per_channel >= 1 && values_per_channel <= kMaxValuesPerChannel);
  MergeTree tree{.chunks = static_cast<uint32_t>(CeilDivide(values_per_channel, kChunkValues)),
                 .full_chunks = static_cast<uint32_t>(values_per_channel / kChunkValues),
                 .ragged_values = static_cast<uint32_t>(values_per_channel % kChunkValues)};
  for (int level = 0; level < kTreeLevels; ++level) {
    const int64_t full = kChunkValues << level;
    const auto left = static_cast<double>(full);
    const auto right = static_cast<double>(values_per_channel % full);
    tree.weights[level] = {.ragged_share = static_cast<float>(right / (left + right)),
                           .ragged_factor = static_cast<float>(left * right / (left + right)),
                           .full_factor = static_cast<float>(left / 2)};
  }
  return tree;
}

std::vector<uint32_t> DispatchPlan::MergeSteps(bool to_one) const {
  std::vector<uint32_t> counts = {tiles};
  const uint32_t most = normalise_access == Access::kColumns ? kMaxSerialNodes : workgroup_size;
  while (counts.back() > (to_one ? 1 : most)) {
    counts.push_back(static_cast<uint32_t>(CeilDivide(counts.back(), workgroup_size)));
  }
  return counts;
}

absl::StatusOr<DispatchPlan> PlanDispatches(const BatchShape& shape, ElementType type,
                                            const vulkan::DeviceLimits& limits, const PlanOptions& options) {
  const int64_t values = shape.ValuesPerChannel();
  NORMSERVE_CHECK(values >= 1);
  if (values > kMaxValuesPerChannel) {
    return DoesNotFit(absl::StrCat("input has ", values, " values per channel, at most ", kMaxValuesPerChannel,
                                   " fit: send a smaller batch"));
  }
  DispatchPlan plan{.tree = MergeTree::Over(values)};
  plan.workgroup_size = options.workgroup_size;
  if (plan.workgroup_size == 0) {
    plan.workgroup_size = ChooseWorkgroupSize(limits);
    if (plan.workgroup_size < 2) return WorkgroupTooSmall(limits);
  }
  NORMSERVE_CHECK(plan.workgroup_size >= 2 && std::has_single_bit(plan.workgroup_size));
  const bool columns = shape.spatial_size == 1 && shape.num_features > 1 && !options.no_columns;
  const uint32_t workgroup_level = columns ? 0 : static_cast<uint32_t>(std::countr_zero(plan.workgroup_size));
  plan.lane_level = options.lane_level >= 0 ? static_cast<uint32_t>(options.lane_level)
                    : columns ? ChooseColumnsLaneLevel(shape, plan.tree, plan.workgroup_size, limits.is_cpu)
                              : ChooseLaneLevel(shape, plan.tree, plan.workgroup_size, limits.is_cpu);

  // One binding shows a shader at most this many bytes, one buffer is no longer, and indices in it fit 32 bits.
  const auto buffer_bytes = static_cast<int64_t>(
      std::min<uint64_t>({limits.max_storage_buffer_range, limits.max_allocation_size, uint64_t{1} << 32}) & ~63ull);
  const int64_t buffer_values = buffer_bytes / ElementSizeBytes(type);
  const bool windowed = buffer_values < values;
  auto tile_values = [&] { return kChunkValues << (plan.lane_level + workgroup_level); };
  if (options.lane_level < 0) {
    // A grid holds only so many tiles, a window at least one.
    while (CeilDivide(values, tile_values()) > limits.max_workgroup_count[0] && plan.lane_level < kMaxLaneLevel) {
      ++plan.lane_level;
    }
    while (windowed && tile_values() > buffer_values && plan.lane_level > 0) --plan.lane_level;
  }
  plan.tile_level = plan.lane_level + workgroup_level;
  plan.tiles = static_cast<uint32_t>(CeilDivide(values, tile_values()));

  // Nodes of a channel over all merge steps and its result: fewer than two a tile, and two.
  const int64_t node_bytes = kNodeBytes * (2 * int64_t{plan.tiles} + 2);
  int64_t channels_per_block =
      std::min({windowed ? 1 : buffer_values / values, (buffer_bytes - kLevelTableBytes) / kConstantsBytes,
                buffer_bytes / node_bytes, static_cast<int64_t>(limits.max_workgroup_count[1])});
  // Two 16-bit channels that share words stay together.
  if (type != ElementType::kFloat32 && channels_per_block > 1) channels_per_block &= ~int64_t{1};
  const int64_t window_values = windowed ? buffer_values / tile_values() * tile_values() : values;
  if (channels_per_block < 1 || window_values < 1) {
    return DoesNotFit(absl::StrCat("the device's buffers of ", buffer_bytes, " bytes are too small for a channel of ",
                                   values, " values: send a smaller batch"));
  }

  plan.one_run = shape.batch_size == 1 || channels_per_block == 1 || shape.num_features == 1;
  const bool aligned_channels = channels_per_block == 1 || shape.num_features == 1 || values % 4 == 0;
  plan.moments_access = columns ? Access::kColumns
                        : shape.spatial_size % kChunkValues == 0 || (plan.one_run && aligned_channels) ? Access::kRuns
                        : shape.spatial_size % 4 == 0                                                  ? Access::kQuads
                                                      : Access::kScalar;
  plan.normalise_access = plan.moments_access == Access::kRuns ? Access::kQuads : plan.moments_access;
  if (plan.normalise_access == Access::kColumns) {
    const int64_t most = std::min(channels_per_block, shape.num_features);
    plan.paired = type != ElementType::kFloat32 && shape.num_features % 2 == 0;
    plan.columns_level = ColumnsLevel(most, plan.workgroup_size);
    plan.paired_columns_level = plan.paired ? ColumnsLevel(most / 2, plan.workgroup_size) : plan.columns_level;
  }

  for (int64_t channel = 0; channel < shape.num_features; channel += channels_per_block) {
    PlanBlock block{.channel_begin = channel,
                    .channel_count = std::min(channels_per_block, shape.num_features - channel)};
    for (int64_t begin = 0; begin < values; begin += window_values) {
      PlanWindow window{.value_begin = begin, .value_count = std::min(window_values, values - begin)};
      window.tile_begin = static_cast<uint32_t>(begin / tile_values());
      window.tile_count = static_cast<uint32_t>(CeilDivide(window.value_count, tile_values()));
      window.slice_values = SliceValues(plan, window.value_count, block.channel_count, limits);
      window.slice_count = static_cast<uint32_t>(CeilDivide(window.value_count, window.slice_values));
      block.windows.push_back(window);
    }
    plan.blocks.push_back(std::move(block));
  }
  return plan;
}

}  // namespace normserve
