// An engine that keeps its jobs until the test lets them go.
#pragma once

#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "kernels/engine.h"
#include "kernels/reference_engine.h"

namespace normserve {

// Thread-safe. Computes as the reference engine does, when told to.
class HeldEngine final : public Engine {
 public:
  void Forward(ForwardJob job, ForwardDone done) override {
    absl::MutexLock lock(&mutex_);
    jobs_.emplace_back(std::move(job), std::move(done));
  }

  // At once: only Forwards are held.
  void Backward(BackwardJob job, BackwardDone done) override { reference_.Backward(std::move(job), std::move(done)); }

  size_t num_held() const {
    absl::MutexLock lock(&mutex_);
    return jobs_.size();
  }

  // Waits until `count` jobs are held.
  void WaitForJobs(size_t count) const {
    absl::MutexLock lock(&mutex_);
    const auto enough = [this, count]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return jobs_.size() >= count; };
    mutex_.Await(absl::Condition(&enough));
  }

  // Computes the oldest job and calls back on this thread.
  void Release() {
    Job job = Take();
    reference_.Forward(std::move(job.first), std::move(job.second));
  }

  // Calls back with an error instead.
  void Refuse(const absl::Status& status) { std::move(Take().second)(status); }

 private:
  using Job = std::pair<ForwardJob, ForwardDone>;

  Job Take() {
    absl::MutexLock lock(&mutex_);
    Job job = std::move(jobs_.front());
    jobs_.erase(jobs_.begin());
    return job;
  }

  ReferenceEngine reference_;
  mutable absl::Mutex mutex_;
  std::vector<Job> jobs_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace normserve
