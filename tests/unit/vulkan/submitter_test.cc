// Jobs that wait together are submitted together; each is completed once, in order, whatever happens.
#include "kernels/vulkan/submitter.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/notification.h"
#include "kernels/error_reason.h"
#include "tests/unit/vulkan/device_test_fixture.h"

namespace normserve::vulkan {
namespace {

class SubmitterTest : public DeviceTest {
 protected:
  static Recording SmallJob(const OpenDevice& open) {
    auto x = OrDie(open.buffers->Acquire(256, BufferUsage::kDevice));
    auto y = OrDie(open.buffers->Acquire(256, BufferUsage::kDevice));
    return RecordScaleAdd(open, x, y, {1, 0, 64});
  }
};

TEST_P(SubmitterTest, JobsThatWaitTogetherGoInOneSubmitAndComeOutInOrder) {
  std::vector<size_t> submits;
  absl::Notification first_submit, rest_is_waiting;
  SubmitterOptions options;
  options.on_submit = [&](size_t jobs) {
    submits.push_back(jobs);
    if (submits.size() > 1) return;
    first_submit.Notify();
    rest_is_waiting.WaitForNotification();
  };
  OpenDevice open = Open({}, {.poison = true}, options);
  constexpr int kJobs = 20;
  std::vector<int> order;  // the completion thread's
  std::vector<Recording> jobs;
  for (int i = 0; i < kJobs; ++i) jobs.push_back(SmallJob(open));
  for (int i = 0; i < kJobs; ++i) {
    open.submitter->Submit(std::move(jobs[i]), [&order, i](absl::Status status) {
      EXPECT_TRUE(status.ok()) << status;
      order.push_back(i);
    });
    if (i == 0) first_submit.WaitForNotification();
  }
  rest_is_waiting.Notify();
  open.submitter.reset();
  EXPECT_EQ(submits, (std::vector<size_t>{1, kJobs - 1}));
  EXPECT_EQ(order.size(), static_cast<size_t>(kJobs));
  EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
  EXPECT_EQ(OrDie(open.device->timeline().Completed()), 2u);
}

TEST_P(SubmitterTest, DoneComesAfterTheDeviceAndAfterTheBuffersWentBack) {
  const OpenDevice open = Open();
  const uint64_t before = OrDie(open.device->timeline().Completed());
  auto x = OrDie(open.buffers->Acquire(256, BufferUsage::kDevice));
  Recording job = RecordScaleAdd(open, x, OrDie(open.buffers->Acquire(256, BufferUsage::kDevice)), {1, 0, 64});
  EXPECT_EQ(open.buffers->counters().buffers_in_use, 2u);
  absl::Notification over;
  open.submitter->Submit(std::move(job), [&](absl::Status status) {
    EXPECT_TRUE(status.ok());
    EXPECT_EQ(OrDie(open.device->timeline().Completed()), before + 1);
    EXPECT_EQ(open.buffers->counters().buffers_in_use, 1u);  // x is still ours
    over.Notify();
  });
  over.WaitForNotification();
}

TEST_P(SubmitterTest, TheDestructorCompletesEveryJobOfEveryThreadOnce) {
  OpenDevice open = Open();
  constexpr int kThreads = 4, kJobs = 50;
  std::vector<std::atomic<int>> done(kThreads * kJobs);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kJobs; ++i) {
        open.submitter->Submit(SmallJob(open), [&done, n = t * kJobs + i](absl::Status status) {
          EXPECT_TRUE(status.ok()) << status;
          ++done[n];
        });
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  open.submitter.reset();
  for (const std::atomic<int>& count : done) EXPECT_EQ(count, 1);
  EXPECT_EQ(open.buffers->counters().buffers_in_use, 0u);
}

// Every job's numbers are right while jobs of other threads use and reuse the same pool, poisoned at every change of
// hands.
TEST_P(SubmitterTest, ThreadsBesideEachOtherGetTheirOwnNumbers) {
  const OpenDevice open = Open();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&open, t] {
      for (int i = 0; i < 40; ++i) {
        auto x = OrDie(open.buffers->Acquire(4096, BufferUsage::kDevice));
        auto y = OrDie(open.buffers->Acquire(4096, BufferUsage::kDevice));
        float* in = reinterpret_cast<float*>(x->mapped());
        for (int k = 0; k < 1024; ++k) in[k] = static_cast<float>(k + t);
        Recording job = RecordScaleAdd(open, std::exchange(x, nullptr), y, {2, 1, 1024});
        ASSERT_TRUE(SubmitAndWait(open, std::move(job)).ok());
        const float* out = reinterpret_cast<const float*>(y->mapped());
        for (int k = 0; k < 1024; ++k) ASSERT_EQ(out[k], 2.0f * static_cast<float>(k + t) + 1);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// Stand-ins for a driver that loses its device.
struct LosingDriver {
  static inline std::atomic<int> submits_left;
  static inline std::atomic<bool> lose_while_waiting;
  static inline PFN_vkQueueSubmit submit;
  static inline PFN_vkWaitSemaphores wait;

  static DeviceOptions Options(int submits, bool while_waiting) {
    submits_left = submits;
    lose_while_waiting = while_waiting;
    DeviceOptions options;
    options.replace_functions = [](VolkDeviceTable& vk) {
      submit = vk.vkQueueSubmit;
      wait = vk.vkWaitSemaphores;
      vk.vkQueueSubmit = [](VkQueue queue, uint32_t count, const VkSubmitInfo* info, VkFence fence) -> VkResult {
        if (submits_left-- <= 0) return VK_ERROR_DEVICE_LOST;
        return submit(queue, count, info, fence);
      };
      vk.vkWaitSemaphores = [](VkDevice device, const VkSemaphoreWaitInfo* info, uint64_t timeout) -> VkResult {
        const VkResult result = wait(device, info, timeout);  // so that nothing is in use when it is freed
        return lose_while_waiting ? VK_ERROR_DEVICE_LOST : result;
      };
    };
    return options;
  }
};

void ExpectDeviceLost(const absl::Status& status) {
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  ASSERT_TRUE(GetErrorDetails(status).has_value());
  EXPECT_EQ(GetErrorDetails(status)->reason, ErrorReason::kDeviceLost);
}

TEST_P(SubmitterTest, ADeviceLostAtASubmitFailsThatJobAndLaterOnes) {
  const OpenDevice open = Open(LosingDriver::Options(1, false));
  Recording first = SmallJob(open), second = SmallJob(open), third = SmallJob(open);
  EXPECT_TRUE(SubmitAndWait(open, std::move(first)).ok());
  ExpectDeviceLost(SubmitAndWait(open, std::move(second)));
  ExpectDeviceLost(SubmitAndWait(open, std::move(third)));
  EXPECT_TRUE(open.device->lost());
  ExpectDeviceLost(CommandRecorder::Begin(*open.device, *open.commands).status());
  ExpectDeviceLost(open.buffers->Acquire(256, BufferUsage::kDevice).status());
}

TEST_P(SubmitterTest, ADeviceLostDuringAWaitFailsEverythingInFlight) {
  OpenDevice open = Open(LosingDriver::Options(1000, true));
  std::vector<Recording> jobs;
  for (int i = 0; i < 10; ++i) jobs.push_back(SmallJob(open));
  std::vector<absl::Status> statuses;
  for (Recording& job : jobs) {
    open.submitter->Submit(std::move(job), [&statuses](absl::Status status) { statuses.push_back(status); });
  }
  open.submitter.reset();
  ASSERT_EQ(statuses.size(), 10u);
  for (const absl::Status& status : statuses) ExpectDeviceLost(status);
  ASSERT_EQ(open.device->vk().vkDeviceWaitIdle(open.device->handle()), VK_SUCCESS);
}

// The tracker hears of every submit: were `done` called before the device had finished, the next to get the memory
// would end the process.
TEST_P(SubmitterTest, MemoryOfAJobReportedTooEarlyIsNeverLent) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  DeviceOptions options;
  options.replace_functions = [](VolkDeviceTable& vk) {
    // Never runs anything, and says that it is done.
    vk.vkQueueSubmit = [](VkQueue, uint32_t, const VkSubmitInfo*, VkFence) { return VK_SUCCESS; };
    vk.vkWaitSemaphores = [](VkDevice, const VkSemaphoreWaitInfo*, uint64_t) { return VK_SUCCESS; };
  };
  const auto submit_and_take_again = [&] {
    const OpenDevice open = Open(options);
    auto buffer = OrDie(open.buffers->Acquire(1 << 20, BufferUsage::kDevice));
    SubmitAndWait(open, RecordScaleAdd(open, std::exchange(buffer, nullptr),
                                       OrDie(open.buffers->Acquire(256, BufferUsage::kDevice)), {1, 0, 64}))
        .IgnoreError();
    OrDie(open.buffers->Acquire(1 << 20, BufferUsage::kDevice));
  };
  EXPECT_DEATH(submit_and_take_again(), "device_has_done_with_the_block");
}

NORMSERVE_ON_EVERY_DEVICE(SubmitterTest);

}  // namespace
}  // namespace normserve::vulkan
