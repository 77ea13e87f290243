// How a batch is cut up for a device: a pure function of shape and limits, tested without a device.
//
// A batch becomes *blocks* of whole channels (channels are independent), a block that is a single channel too long for
// one buffer becomes *windows* of consecutive values, each window is reduced in *tiles* (one workgroup each) and
// normalised in *slices* (one workgroup each). Nearly every batch is one block of one window.
//
// None of this changes a result: the merge tree (shaders/moments_node.glsl) is a function of the number of values
// alone.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/batch_norm.h"
#include "kernels/vulkan/device_limits.h"

namespace normserve {

// Values that one invocation holds in registers; a leaf of the merge tree.
inline constexpr int64_t kChunkValues = 16;
// Levels of the merge tree at most. Equal to kLevels in pair.glsl.
inline constexpr int kTreeLevels = 32;

// How a shader may read consecutive values of a channel.
enum class Access : uint32_t {
  kScalar = 0,  // one by one, any S
  kQuads = 1,   // four at a time: S % 4 == 0
  kRuns = 2,    // sixteen at a time: S % 16 == 0, or the whole channel is one run
  // One by one, neighbouring invocations taking neighbouring channels: S == 1 and C > 1, [N, C] and channels last.
  kColumns = 3,
};

// Nodes of a channel that an invocation merges one after the other with kColumns. 2^kMaxSerialLevel in
// channel_nodes.glsl.
inline constexpr uint32_t kMaxSerialNodes = 16;

// The merge tree over one channel's values.
struct MergeTree {
  uint32_t chunks = 0;         // leaves, the ragged one included
  uint32_t full_chunks = 0;    // leaves of kChunkValues
  uint32_t ragged_values = 0;  // values of the last leaf if it is not full, else 0

  // Weights of a merge at one level, in float32 as the shaders use them (see LevelWeights there).
  struct LevelWeights {
    float ragged_share = 0;
    float ragged_factor = 0;
    float full_factor = 0;
    float unused = 0;
  };
  std::array<LevelWeights, kTreeLevels> weights = {};

  // values_per_channel >= 1 and at most kMaxValuesPerChannel.
  static MergeTree Over(int64_t values_per_channel);
};

// Chunks of an invocation are at most 2^kMaxLaneLevel.
inline constexpr uint32_t kMaxLaneLevel = 24;
// The tree's positions fit 32 bits up to here.
inline constexpr int64_t kMaxValuesPerChannel = kChunkValues << 31;

// Consecutive values of every channel of a block, in a buffer of their own.
struct PlanWindow {
  int64_t value_begin = 0;  // in the channel
  int64_t value_count = 0;  // of each channel
  uint32_t tile_begin = 0;  // in the channel
  uint32_t tile_count = 0;
  uint32_t slice_count = 0;
  // Values of a channel in one slice; the last may be shorter.
  uint32_t slice_values = 0;
};

// Whole channels, worked on without regard to any others.
struct PlanBlock {
  int64_t channel_begin = 0;
  int64_t channel_count = 0;
  std::vector<PlanWindow> windows;  // more than one only if channel_count == 1
};

struct DispatchPlan {
  MergeTree tree;
  uint32_t workgroup_size = 0;  // invocations, a power of two
  uint32_t lane_level = 0;      // an invocation reduces 2^lane_level chunks
  uint32_t tile_level = 0;      // level of a tile's node: lane_level + log2(workgroup_size); kColumns: lane_level
  uint32_t tiles = 0;           // of a channel
  Access moments_access = Access::kScalar;
  Access normalise_access = Access::kScalar;  // kScalar, kQuads or kColumns
  // kColumns: a workgroup works on 2^columns_level neighbouring columns at once. A column is a channel or, in the
  // shaders that write 16-bit values in `paired` columns, two channels that share words.
  uint32_t columns_level = 0;
  uint32_t paired_columns_level = 0;  // of the shaders that write
  bool paired = false;
  // Values of a plane as the shaders see them: S, or all of a window where a channel is one run.
  bool one_run = false;
  std::vector<PlanBlock> blocks;

  // Merges before a workgroup can take a channel's nodes at once: node counts of a channel, from `tiles` down to one
  // that is at most the workgroup size (kColumns: kMaxSerialNodes), or down to 1 if `to_one`.
  std::vector<uint32_t> MergeSteps(bool to_one) const;
};

// What a caller may fix in place of the planner's choice; 0 and -1 leave it open. Every choice gives the same bits.
struct PlanOptions {
  uint32_t workgroup_size = 0;  // a power of two, 2 or more
  int lane_level = -1;
  bool no_columns = false;  // kScalar in place of kColumns
};

// `shape` holds at least one value, of `type`.
// RESOURCE_EXHAUSTED (DEVICE_MEMORY): a channel of more than kMaxValuesPerChannel values, or limits too tight to hold
// even one tile, or to let two invocations work together.
absl::StatusOr<DispatchPlan> PlanDispatches(const BatchShape& shape, ElementType type,
                                            const vulkan::DeviceLimits& limits, const PlanOptions& options = {});

}  // namespace normserve
