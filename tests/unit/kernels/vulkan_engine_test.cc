// What the engine promises beside the right numbers: no allocation in steady state, nothing lost when memory runs out.
#include "kernels/vulkan_engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "absl/synchronization/notification.h"
#include "kernels/error_reason.h"
#include "kernels/reference_engine.h"
#include "tests/unit/vulkan/validation_guard.h"

namespace normserve {
namespace {

ForwardJob Job(const BatchShape& shape, bool training) {
  const auto channels = static_cast<size_t>(shape.num_features);
  auto values = std::make_shared<std::vector<float>>(static_cast<size_t>(shape.NumValues()));
  for (size_t i = 0; i < values->size(); ++i) (*values)[i] = static_cast<float>(i % 17);
  ForwardJob job{.input = {.shape = shape,
                           .pieces = {{reinterpret_cast<const std::byte*>(values->data()), values->size() * 4}},
                           .owner = values},
                 .parameters = std::make_shared<AffineParameters>(AffineParameters{
                     .weight = std::vector<float>(channels, 1), .bias = std::vector<float>(channels, 0)})};
  if (!training) {
    job.given = std::make_shared<NormalizationStatistics>(NormalizationStatistics{
        .mean = std::vector<double>(channels, 0), .variance = std::vector<double>(channels, 1)});
  }
  return job;
}

absl::StatusOr<ForwardResult> Compute(Engine& engine, ForwardJob job) {
  absl::Notification finished;
  absl::StatusOr<ForwardResult> answer;
  engine.Forward(std::move(job), [&](absl::StatusOr<ForwardResult> result) {
    answer = std::move(result);
    finished.Notify();
  });
  finished.WaitForNotification();
  return answer;
}

// Staged, an engine uses every kind of buffer.
std::unique_ptr<VulkanEngine> StagedEngine(vulkan::BufferPoolOptions pool = {}) {
  auto engine = VulkanEngine::Create({.mask = {.no_host_visible_device_memory = true},
                                      .instance = {.validation = true, .on_message = vulkan::FailOnValidationMessage()},
                                      .pool = pool});
  EXPECT_TRUE(engine.ok()) << engine.status();
  return *std::move(engine);
}

TEST(VulkanEngineTest, RequestsInSteadyStateAllocateNothing) {
  const auto engine = StagedEngine();
  const BatchShape shapes[] = {{4, 3, 1024}, {8, 256, 196}, {32, 64, 49}, {2, 5, 1}};
  for (const BatchShape& shape : shapes) {
    for (bool training : {true, false}) ASSERT_TRUE(Compute(*engine, Job(shape, training)).ok());
  }
  const uint64_t allocations = engine->pool_counters().device_allocations;
  for (int i = 0; i < 25; ++i) {
    for (const BatchShape& shape : shapes) {
      for (bool training : {true, false}) ASSERT_TRUE(Compute(*engine, Job(shape, training)).ok());
    }
  }
  EXPECT_EQ(engine->pool_counters().device_allocations, allocations);
}

TEST(VulkanEngineTest, BatchBeyondMemoryIsRefusedAndLeavesNothingBehind) {
  const auto engine = StagedEngine({.max_total_bytes = 64 << 20});
  ASSERT_TRUE(Compute(*engine, Job({2, 3, 4}, true)).ok());
  const auto refused = Compute(*engine, Job({64, 64, 8192}, true));  // 128 MiB
  ASSERT_EQ(refused.status().code(), absl::StatusCode::kResourceExhausted) << refused.status();
  EXPECT_EQ(GetErrorDetails(refused.status())->reason, ErrorReason::kDeviceMemory);
  EXPECT_EQ(engine->pool_counters().buffers_in_use, 0u);
  EXPECT_TRUE(Compute(*engine, Job({2, 3, 4}, true)).ok());
}

TEST(VulkanEngineTest, ManyCallersBeyondMemoryAreServedOrRefusedAndNothingLeaks) {
  const auto engine = StagedEngine({.max_total_bytes = 48 << 20});
  std::atomic<int> served = 0, refused = 0;
  std::vector<std::thread> callers;
  for (int t = 0; t < 8; ++t) {
    callers.emplace_back([&] {
      for (int i = 0; i < 8; ++i) {
        const auto result = Compute(*engine, Job({16, 64, 1024}, true));  // 4 MiB, three times over
        if (result.ok()) {
          ++served;
        } else {
          EXPECT_EQ(result.status().code(), absl::StatusCode::kResourceExhausted) << result.status();
          ++refused;
        }
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(served + refused, 64);
  EXPECT_GT(served, 0);
  EXPECT_EQ(engine->pool_counters().buffers_in_use, 0u);
}

TEST(VulkanEngineTest, AMaskThatLeavesNoWorkgroupIsRefused) {
  for (const vulkan::DeviceMask& mask :
       {vulkan::DeviceMask{.max_workgroup_invocations = 1}, vulkan::DeviceMask{.max_shared_memory_bytes = 16}}) {
    const auto engine = VulkanEngine::Create({.mask = mask});
    EXPECT_EQ(engine.status().code(), absl::StatusCode::kResourceExhausted) << engine.status();
  }
}

TEST(VulkanEngineTest, ADeviceThatIsNotThereIsRefusedWithTheListOfThoseThatAre) {
  const auto engine = VulkanEngine::Create({.selection = {.device = "no such device"}});
  EXPECT_EQ(engine.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(engine.status().message()), ::testing::HasSubstr("llvmpipe"));
}

TEST(VulkanEngineTest, AVariantIsTestedBeforeItsFirstUseAndReported) {
  const auto engine = StagedEngine();
  const auto result_of = [&](const ShaderVariant& variant) {
    for (const auto& entry : engine->self_test_report().entries) {
      if (entry.variant == variant) return entry.result;
    }
    return SelfTestResult::kFailed;
  };
  const ShaderVariant half = {.access = Access::kRuns, .type = ElementType::kFloat16};
  EXPECT_EQ(result_of(half), SelfTestResult::kPending);
  ForwardJob job = Job({2, 3, 32}, /*training=*/true);
  job.input.type = ElementType::kFloat16;
  job.input.pieces = {job.input.pieces[0].first(2 * 3 * 32 * 2)};
  ASSERT_TRUE(Compute(*engine, std::move(job)).ok());
  EXPECT_EQ(result_of(half), SelfTestResult::kPassed);
  ASSERT_TRUE(Compute(*engine, Job({2, 3, 32}, true)).ok());
  EXPECT_EQ(result_of({.access = Access::kRuns}), SelfTestResult::kPassed);
  EXPECT_TRUE(engine->self_test_report().keeps_subnormals.has_value());
  EXPECT_EQ(engine->self_test_report().entries.size(), 24u);
}

// Double precision gives other bits than float32: to this engine its device is wrong.
TEST(VulkanEngineTest, AVariantThatFailsItsTestIsNotUsed) {
  auto engine = VulkanEngine::Create({.make_model = [] { return std::make_unique<ReferenceEngine>(); }});
  ASSERT_TRUE(engine.ok()) << engine.status();
  const absl::Status status = Compute(**engine, Job({2, 3, 32}, /*training=*/true)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
  EXPECT_EQ(GetErrorDetails(status)->reason, ErrorReason::kSelfTestFailed);
  EXPECT_EQ(GetErrorDetails(status)->metadata.at("variant"), "forward, runs, FLOAT32");
}

}  // namespace
}  // namespace normserve
