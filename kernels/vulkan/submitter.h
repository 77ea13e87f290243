// The one way to a device's queue: jobs go in from any thread, completions come out in order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "kernels/vulkan/device.h"
#include "kernels/vulkan/recorder.h"

namespace normserve::vulkan {

// Called once when a job is over: OK when the device completed it.
using JobDone = absl::AnyInvocable<void(absl::Status) &&>;

struct SubmitterOptions {
  // Called on the submitter's thread before each submit with the number of jobs in it.
  std::function<void(size_t)> on_submit;
};

// Two threads. The submit thread takes all the jobs that are waiting and hands them to the queue in one submit that
// raises the device's timeline by one; the completion thread waits for the timeline, gives the recordings (and with
// them their buffers) back and then calls each `done`, in the order of Submit. No caller ever waits.
//
// When the device is lost, every job in flight, waiting or submitted later gets UNAVAILABLE (DEVICE_LOST).
//
// Thread-safe. One submitter per device, which outlives it.
class Submitter {
 public:
  static absl::StatusOr<std::unique_ptr<Submitter>> Create(Device& device, SubmitterOptions options = {});
  // Completes what was submitted; every `done` has been called. No Submit may run beside or after it, not from a
  // `done` either.
  ~Submitter();
  Submitter(const Submitter&) = delete;
  Submitter& operator=(const Submitter&) = delete;

  // Queues `recording` and returns. `done` is called exactly once, on the completion thread: it must not block, for
  // it holds up the others, and must not destroy the submitter.
  void Submit(Recording recording, JobDone done);

 private:
  struct Job {
    Recording recording;
    JobDone done;
  };
  // Jobs of one submit.
  struct Batch {
    uint64_t timeline_value = 0;
    absl::Status status;  // not OK: it never reached the device
    std::vector<Job> jobs;
  };

  Submitter(Device& device, SubmitterOptions options, uint64_t last_value);
  void SubmitLoop();
  void CompletionLoop();
  bool SubmitThreadHasWork() const ABSL_SHARED_LOCKS_REQUIRED(mu_) { return stopping_ || !waiting_.empty(); }
  bool CompletionThreadHasWork() const ABSL_SHARED_LOCKS_REQUIRED(mu_) {
    return submit_thread_ended_ || !in_flight_.empty();
  }
  absl::Status SubmitBatch(Batch& batch);
  absl::Status WaitForBatch(const Batch& batch);

  Device& device_;
  const SubmitterOptions options_;
  // Last value handed to the queue; the submit thread's own.
  uint64_t last_value_ = 0;

  absl::Mutex mu_;
  std::vector<Job> waiting_ ABSL_GUARDED_BY(mu_);
  std::deque<Batch> in_flight_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;  // no more Submit
  bool submit_thread_ended_ ABSL_GUARDED_BY(mu_) = false;

  std::thread submit_thread_;
  std::thread completion_thread_;
};

}  // namespace normserve::vulkan
