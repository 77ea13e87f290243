#include "kernels/self_test.h"

#include <gtest/gtest.h>

#include <utility>

#include "kernels/bit_model.h"

namespace normserve {
namespace {

constexpr ShaderVariant kForward = {.backward = false, .access = Access::kColumns};

// A device that computes as the model does, unless it has no memory.
class Device {
 public:
  void Begin(SelfTest& test) {
    test.Begin(
        kForward,
        [&](ForwardJob job, ForwardDone done) {
          ++jobs;
          if (fails) return std::move(done)(absl::ResourceExhaustedError("no memory"));
          model_.Forward(std::move(job), std::move(done));
        },
        [&](BackwardJob, BackwardDone) { ADD_FAILURE() << "a forward variant tests nothing backward"; });
  }

  bool fails = false;
  int jobs = 0;

 private:
  BitModelEngine model_;
};

TEST(SelfTestTest, AVariantWhoseTestCouldNotRunIsTestedAgain) {
  SelfTest test(std::make_unique<BitModelEngine>());
  Device device;
  device.fails = true;
  device.Begin(test);
  EXPECT_EQ(test.result(kForward), SelfTestResult::kPending);
  EXPECT_EQ(test.not_run(kForward).code(), absl::StatusCode::kResourceExhausted);
  device.fails = false;
  device.Begin(test);
  EXPECT_EQ(test.result(kForward), SelfTestResult::kPassed);
  EXPECT_TRUE(test.not_run(kForward).ok());
}

TEST(SelfTestTest, AVariantThatPassedIsNotTestedAgain) {
  SelfTest test(std::make_unique<BitModelEngine>());
  Device device;
  device.Begin(test);
  const int jobs = device.jobs;
  EXPECT_GT(jobs, 0);
  device.Begin(test);
  EXPECT_EQ(device.jobs, jobs);
}

}  // namespace
}  // namespace normserve
