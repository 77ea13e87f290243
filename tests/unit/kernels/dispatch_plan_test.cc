// The planner at sizes no machine here could run: what it cuts up covers every value once and breaks no limit.
#include "kernels/dispatch_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>

#include "kernels/batch_norm.h"
#include "kernels/error_reason.h"
#include "kernels/tensor_segments.h"

namespace normserve {
namespace {

vulkan::DeviceLimits CpuDriver() {
  return {.name = "a CPU driver",
          .is_cpu = true,
          .max_storage_buffer_range = 128 << 20,
          .min_storage_buffer_offset_alignment = 16,
          .max_storage_buffers = 4,
          .max_push_constants_bytes = 128,
          .max_workgroup_invocations = 1024,
          .max_workgroup_size_x = 1024,
          .max_workgroup_count = {65535, 65535, 65535},
          .max_shared_memory_bytes = 32768,
          .subgroup_size = 8,
          .max_allocation_size = uint64_t{2} << 30};
}

vulkan::DeviceLimits Gpu() {
  vulkan::DeviceLimits limits = CpuDriver();
  limits.name = "a GPU";
  limits.is_cpu = false;
  limits.max_storage_buffer_range = (uint64_t{1} << 32) - 1;
  limits.max_workgroup_count = {0x7fffffff, 65535, 65535};
  limits.subgroup_size = 32;
  limits.max_allocation_size = uint64_t{4} << 30;
  return limits;
}

// What Vulkan 1.2 promises at least.
vulkan::DeviceLimits Floor() {
  vulkan::DeviceLimits limits = CpuDriver();
  limits.name = "Vulkan's minimum";
  limits.is_cpu = false;
  limits.max_storage_buffer_range = 1 << 27;
  limits.max_workgroup_invocations = 128;
  limits.max_workgroup_size_x = 128;
  limits.max_shared_memory_bytes = 16384;
  limits.subgroup_size = 1;
  limits.max_allocation_size = 1 << 30;
  return limits;
}

vulkan::DeviceLimits Masked(vulkan::DeviceLimits limits) {
  limits.name += " masked to 1 MiB";
  limits.max_storage_buffer_range = 1 << 20;
  return limits;
}

std::vector<vulkan::DeviceLimits> AllLimits() {
  return {CpuDriver(), Gpu(), Floor(), Masked(CpuDriver()), Masked(Gpu())};
}

std::string Name(const BatchShape& shape, const vulkan::DeviceLimits& limits) {
  return DimensionsText({shape.batch_size, shape.num_features, shape.spatial_size}) + " on " + limits.name;
}

// Bytes of the nodes of all merge steps and the result, as an engine lays them out.
int64_t NodeBytes(const DispatchPlan& plan, const PlanBlock& block) {
  int64_t nodes = 1;
  for (uint32_t count : plan.MergeSteps(false)) nodes += count;
  return nodes * block.channel_count * 32;  // those of gradients, the larger ones
}

void ExpectWindowWithinLimits(const DispatchPlan& plan, const PlanBlock& block, const PlanWindow& window,
                              const vulkan::DeviceLimits& limits) {
  EXPECT_LE(block.channel_count * window.value_count * 2, static_cast<int64_t>(limits.max_storage_buffer_range));
  EXPECT_LE(window.tile_count, limits.max_workgroup_count[0]);
  EXPECT_LE(window.slice_count, limits.max_workgroup_count[0]);
  const int64_t tile_values = kChunkValues << plan.tile_level;
  EXPECT_EQ(window.value_begin, window.tile_begin * tile_values);
  EXPECT_EQ(window.tile_count, (window.value_count + tile_values - 1) / tile_values);
  EXPECT_EQ(window.slice_count, (window.value_count + window.slice_values - 1) / window.slice_values);
  // What the shader computes in 32 bits: ends of slices, and addresses of values.
  EXPECT_LT(int64_t{window.slice_count} * window.slice_values, int64_t{1} << 32);
  EXPECT_LT(block.channel_count * window.value_count, int64_t{1} << 32);
}

void ExpectCoversOnceWithinLimits(const BatchShape& shape, const DispatchPlan& plan,
                                  const vulkan::DeviceLimits& limits) {
  EXPECT_LE(plan.workgroup_size, limits.max_workgroup_invocations);
  EXPECT_LE(plan.lane_level, kMaxLaneLevel);
  const bool columns = plan.moments_access == Access::kColumns;
  EXPECT_EQ(columns ? 1u << plan.lane_level : plan.workgroup_size << plan.lane_level, 1u << plan.tile_level);
  EXPECT_LE(1u << plan.columns_level, plan.workgroup_size);
  EXPECT_LE(1u << plan.paired_columns_level, plan.workgroup_size);
  int64_t channel = 0;
  for (const PlanBlock& block : plan.blocks) {
    EXPECT_EQ(block.channel_begin, channel);
    channel += block.channel_count;
    EXPECT_LE(block.channel_count, limits.max_workgroup_count[1]);
    EXPECT_LE(NodeBytes(plan, block), static_cast<int64_t>(limits.max_storage_buffer_range));
    EXPECT_TRUE(block.windows.size() == 1 || block.channel_count == 1);
    int64_t value = 0;
    uint32_t tile = 0;
    for (const PlanWindow& window : block.windows) {
      EXPECT_EQ(window.value_begin, value);
      EXPECT_EQ(window.tile_begin, tile);
      value += window.value_count;
      tile += window.tile_count;
      ExpectWindowWithinLimits(plan, block, window, limits);
    }
    EXPECT_EQ(value, shape.ValuesPerChannel());
    EXPECT_EQ(tile, plan.tiles);
    if (::testing::Test::HasFailure()) return;
  }
  EXPECT_EQ(channel, shape.num_features);
}

// Reading four or sixteen values at once is right only where they lie together and aligned.
void ExpectAccessIsAligned(const BatchShape& shape, const DispatchPlan& plan) {
  if (plan.moments_access == Access::kColumns) {
    EXPECT_EQ(shape.spatial_size, 1);
    EXPECT_GT(shape.num_features, 1);
    EXPECT_EQ(plan.normalise_access, Access::kColumns);
    return;
  }
  EXPECT_FALSE(plan.paired);
  const bool alone = plan.blocks.front().channel_count == 1 && plan.blocks.back().channel_count == 1;
  const int64_t run = plan.one_run ? shape.ValuesPerChannel() : shape.spatial_size;
  if (plan.one_run) {
    EXPECT_TRUE(shape.batch_size == 1 || alone || shape.num_features == 1);
  }
  if (plan.moments_access != Access::kScalar) {
    EXPECT_TRUE(run % 4 == 0 || (plan.one_run && alone));
  }
  if (plan.moments_access == Access::kRuns) {
    EXPECT_TRUE(run % 16 == 0 || plan.one_run);
  }
  EXPECT_EQ(plan.normalise_access == Access::kScalar, plan.moments_access == Access::kScalar);
}

TEST(DispatchPlanTest, ShapesBeyond32BitsAreCoveredOnceWithinLimits) {
  const BatchShape shapes[] = {
      {1, 1, int64_t{1} << 31},
      {1, 1, (int64_t{1} << 31) + 1},
      {3, 5, (int64_t{1} << 31) / 3},
      {int64_t{1} << 20, 4096, 4},
      {int64_t{1} << 32, 3, 1},
      {2, 100000, 1},
      {65536, 70000, 1},
      {3, 1, (int64_t{1} << 33) + 13},
      {32, 64, 56 * 56},
      {1, 1, kMaxValuesPerChannel},
      {1024, 1 << 20, 49},
      {16, 512, 861},
  };
  for (const vulkan::DeviceLimits& limits : AllLimits()) {
    for (const BatchShape& shape : shapes) {
      SCOPED_TRACE(Name(shape, limits));
      const auto plan = PlanDispatches(shape, ElementType::kFloat32, limits);
      if (!plan.ok()) {
        // Only a channel whose nodes outgrow a buffer may be refused.
        EXPECT_EQ(plan.status().code(), absl::StatusCode::kResourceExhausted);
        EXPECT_GE(shape.ValuesPerChannel(), int64_t{1} << 32);
        EXPECT_EQ(limits.max_storage_buffer_range, uint64_t{1} << 20);
        continue;
      }
      ExpectCoversOnceWithinLimits(shape, *plan, limits);
      ExpectAccessIsAligned(shape, *plan);
    }
  }
}

TEST(DispatchPlanTest, DrawnShapesAreCoveredOnceWithinLimits) {
  std::mt19937_64 random(20260);
  auto draw = [&](int bits) { return static_cast<int64_t>(random() >> (64 - 1 - random() % bits)) + 1; };
  for (const vulkan::DeviceLimits& limits : AllLimits()) {
    for (int i = 0; i < 2000; ++i) {
      const BatchShape shape{draw(10), draw(12), draw(16)};
      SCOPED_TRACE(Name(shape, limits));
      for (ElementType type : {ElementType::kFloat32, ElementType::kFloat16}) {
        const auto plan = PlanDispatches(shape, type, limits);
        ASSERT_TRUE(plan.ok()) << plan.status();
        ExpectCoversOnceWithinLimits(shape, *plan, limits);
        ExpectAccessIsAligned(shape, *plan);
        // Channels in pairs share words: never across blocks.
        for (const PlanBlock& block : plan->blocks) EXPECT_TRUE(!plan->paired || block.channel_count % 2 == 0);
        EXPECT_TRUE(!plan->paired || type == ElementType::kFloat16);
        if (HasFailure()) return;
      }
    }
  }
}

TEST(DispatchPlanTest, OneWindowIsTwoDispatchesInTraining) {
  for (const vulkan::DeviceLimits& limits : {CpuDriver(), Gpu(), Floor()}) {
    for (const BatchShape& shape :
         {BatchShape{32, 64, 3136}, BatchShape{4, 3, 1024}, BatchShape{1, 1, 1 << 24}, BatchShape{2, 60000, 1}}) {
      SCOPED_TRACE(Name(shape, limits));
      const auto plan = PlanDispatches(shape, ElementType::kFloat32, limits);
      ASSERT_TRUE(plan.ok()) << plan.status();
      ASSERT_EQ(plan->blocks.size(), 1u);
      EXPECT_EQ(plan->blocks[0].windows.size(), 1u);
      EXPECT_EQ(plan->MergeSteps(false).size(), 1u) << "a merge between moments and normalise";
    }
  }
}

TEST(DispatchPlanTest, TooManyValuesPerChannelAreRefusedByName) {
  const auto plan = PlanDispatches({1, 1, kMaxValuesPerChannel + 1}, ElementType::kFloat32, Gpu());
  EXPECT_EQ(plan.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(GetErrorDetails(plan.status())->reason, ErrorReason::kDeviceMemory);
  EXPECT_THAT(std::string(plan.status().message()), ::testing::HasSubstr("values per channel"));
}

TEST(DispatchPlanTest, WorkgroupsOfFewerThanTwoInvocationsAreRefusedByName) {
  vulkan::DeviceLimits lone = CpuDriver(), narrow = Gpu(), cramped = CpuDriver(), bare = Gpu();
  lone.max_workgroup_invocations = 1;
  narrow.max_workgroup_size_x = 1;
  cramped.max_shared_memory_bytes = 16;
  bare.max_shared_memory_bytes = 1;
  for (const vulkan::DeviceLimits& limits : {lone, narrow, cramped, bare}) {
    const auto plan = PlanDispatches({4, 3, 1024}, ElementType::kFloat32, limits);
    EXPECT_EQ(plan.status().code(), absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(GetErrorDetails(plan.status())->reason, ErrorReason::kDeviceMemory);
    EXPECT_THAT(std::string(plan.status().message()), ::testing::HasSubstr("invocations"));
  }
  vulkan::DeviceLimits least = CpuDriver();
  least.max_workgroup_invocations = 2;
  least.max_shared_memory_bytes = 64;
  EXPECT_TRUE(PlanDispatches({4, 3, 1024}, ElementType::kFloat32, least).ok());
}

TEST(MergeTreeTest, RaggedWeightsAreSharesOfTheValuesOnEachSide) {
  for (int64_t values : {1, 15, 16, 17, 31, 33, 100, 100352, 1 << 20}) {
    const MergeTree tree = MergeTree::Over(values);
    EXPECT_EQ(tree.full_chunks * 16 + tree.ragged_values, values);
    EXPECT_EQ(tree.chunks, tree.full_chunks + (tree.ragged_values > 0));
    for (int level = 0; (int64_t{16} << level) < values; ++level) {
      const double left = static_cast<double>(int64_t{16} << level);
      const double right = static_cast<double>(values % (int64_t{16} << level));
      EXPECT_FLOAT_EQ(tree.weights[level].ragged_share, static_cast<float>(right / (left + right)));
      EXPECT_FLOAT_EQ(tree.weights[level].ragged_factor, static_cast<float>(left * right / (left + right)));
      EXPECT_EQ(tree.weights[level].full_factor, static_cast<float>(left / 2));
    }
  }
}

TEST(TensorSegmentsTest, ScatterThenGatherIsTheTensor) {
  for (const BatchShape& shape : {BatchShape{3, 5, 7}, BatchShape{2, 3, 1000}, BatchShape{5, 2, 90000},
                                  BatchShape{700, 1000, 1}, BatchShape{3, 1, 300001}}) {
    SCOPED_TRACE(Name(shape, Masked(CpuDriver())));
    const auto plan = PlanDispatches(shape, ElementType::kFloat32, Masked(CpuDriver()));
    ASSERT_TRUE(plan.ok()) << plan.status();
    std::vector<std::vector<std::vector<std::byte>>> storage;
    WindowBytes buffers;
    for (const PlanBlock& block : plan->blocks) {
      storage.emplace_back();
      buffers.emplace_back();
      storage.back().reserve(block.windows.size());
      for (const PlanWindow& window : block.windows) {
        storage.back().emplace_back(static_cast<size_t>(block.channel_count * window.value_count) * 4);
        buffers.back().push_back(storage.back().back().data());
      }
    }
    std::vector<std::byte> tensor(static_cast<size_t>(shape.SizeBytes(ElementType::kFloat32)));
    std::mt19937 random(7);
    for (std::byte& byte : tensor) byte = static_cast<std::byte>(random());
    InputTensor input{.shape = shape};
    // Pieces that begin and end inside values.
    for (size_t at = 0; at < tensor.size();) {
      const size_t size = std::min<size_t>(1 + random() % 9999, tensor.size() - at);
      input.pieces.emplace_back(tensor.data() + at, size);
      at += size;
    }
    Scatter(input, *plan, buffers);
    std::vector<std::byte> gathered;
    for (absl::Span<const std::byte> piece : GatherPieces(shape, ElementType::kFloat32, *plan, buffers)) {
      gathered.insert(gathered.end(), piece.begin(), piece.end());
    }
    EXPECT_TRUE(gathered == tensor);
  }
}

TEST(BatchShapeTest, DimensionsThatOverflowOrAreNotPositiveAreRefused) {
  const int64_t big = int64_t{1} << 40;
  for (const std::vector<int64_t>& dimensions : {std::vector<int64_t>{3},
                                                 {},
                                                 {-1, 3},
                                                 {2, 0},
                                                 {2, 3, 0},
                                                 {2, 3, -4},
                                                 {big, big},
                                                 {0, big, big},
                                                 {1, big, 3, big}}) {
    const auto shape = BatchShape::FromDimensions(dimensions);
    EXPECT_EQ(shape.status().code(), absl::StatusCode::kInvalidArgument) << DimensionsText(dimensions);
    EXPECT_EQ(GetErrorDetails(shape.status())->metadata.at("field"), "input.shape");
  }
  EXPECT_EQ(*BatchShape::FromDimensions({2, 3, 4, 5}), (BatchShape{2, 3, 20}));
  EXPECT_EQ(*BatchShape::FromDimensions({0, 3}), (BatchShape{0, 3, 1}));
}

}  // namespace
}  // namespace normserve
