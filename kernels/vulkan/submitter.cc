#include "kernels/vulkan/submitter.h"

#include <utility>

#include "absl/time/time.h"
#include "kernels/check.h"
#include "kernels/vulkan/result.h"

namespace normserve::vulkan {
namespace {

// Waits are repeated without end; this bounds one call, for some drivers overflow on "for ever".
constexpr absl::Duration kWaitStep = absl::Seconds(10);

}  // namespace

absl::StatusOr<std::unique_ptr<Submitter>> Submitter::Create(Device& device, SubmitterOptions options) {
  auto completed = device.timeline().Completed();
  if (!completed.ok()) return completed.status();
  return std::unique_ptr<Submitter>(new Submitter(device, std::move(options), *completed));
}

Submitter::Submitter(Device& device, SubmitterOptions options, uint64_t last_value)
    : device_(device), options_(std::move(options)), last_value_(last_value) {
  submit_thread_ = std::thread([this] { SubmitLoop(); });
  completion_thread_ = std::thread([this] { CompletionLoop(); });
}

Submitter::~Submitter() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
  }
  submit_thread_.join();
  completion_thread_.join();
}

void Submitter::Submit(Recording recording, JobDone done) {
  absl::MutexLock lock(&mu_);
  NORMSERVE_CHECK(!stopping_);
  waiting_.push_back(Job{std::move(recording), std::move(done)});
}

void Submitter::SubmitLoop() {
  while (true) {
    Batch batch;
    {
      absl::MutexLock lock(&mu_, absl::Condition(this, &Submitter::SubmitThreadHasWork));
      if (waiting_.empty()) {
        submit_thread_ended_ = true;
        return;
      }
      batch.jobs.swap(waiting_);
    }
    if (options_.on_submit) options_.on_submit(batch.jobs.size());
    batch.status = SubmitBatch(batch);
    absl::MutexLock lock(&mu_);
    in_flight_.push_back(std::move(batch));
  }
}

absl::Status Submitter::SubmitBatch(Batch& batch) {
  if (device_.lost()) return DeviceLostError(device_.limits().name);
  std::vector<VkCommandBuffer> commands;
  for (const Job& job : batch.jobs) commands.push_back(job.recording.handle());
  const uint64_t value = last_value_ + 1;
  const VkSemaphore semaphore = device_.timeline().handle();
  VkTimelineSemaphoreSubmitInfo timeline = {VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO};
  timeline.signalSemaphoreValueCount = 1;
  timeline.pSignalSemaphoreValues = &value;
  VkSubmitInfo submit = {VK_STRUCTURE_TYPE_SUBMIT_INFO};
  submit.pNext = &timeline;
  submit.commandBufferCount = static_cast<uint32_t>(commands.size());
  submit.pCommandBuffers = commands.data();
  submit.signalSemaphoreCount = 1;
  submit.pSignalSemaphores = &semaphore;
  const VkResult result = device_.vk().vkQueueSubmit(device_.queue(), 1, &submit, VK_NULL_HANDLE);
  if (result == VK_ERROR_DEVICE_LOST) {
    device_.MarkLost();
    return DeviceLostError(device_.limits().name);
  }
  // A submit that failed signals nothing: its value is used again.
  if (result != VK_SUCCESS) return ResultStatus(result, "vkQueueSubmit");
  last_value_ = value;
  batch.timeline_value = value;
  for (const Job& job : batch.jobs) job.recording.RecordUse(value);
  return absl::OkStatus();
}

void Submitter::CompletionLoop() {
  while (true) {
    Batch batch;
    {
      absl::MutexLock lock(&mu_, absl::Condition(this, &Submitter::CompletionThreadHasWork));
      if (in_flight_.empty()) return;
      batch = std::move(in_flight_.front());
      in_flight_.pop_front();
    }
    const absl::Status status = WaitForBatch(batch);
    for (Job& job : batch.jobs) {
      {
        const Recording given_back = std::move(job.recording);
      }
      std::move(job.done)(status);
      job.done = nullptr;  // with what it holds
    }
  }
}

absl::Status Submitter::WaitForBatch(const Batch& batch) {
  if (!batch.status.ok()) return batch.status;
  while (true) {
    if (device_.lost()) return DeviceLostError(device_.limits().name);
    auto reached = device_.timeline().Wait(batch.timeline_value, kWaitStep);
    if (!reached.ok()) {
      // Whatever the driver says, what it was given can no longer be accounted for.
      device_.MarkLost();
      return DeviceLostError(device_.limits().name);
    }
    if (*reached) return absl::OkStatus();
  }
}

}  // namespace normserve::vulkan
