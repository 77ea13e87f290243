#include "server/observe/measured_engine.h"

#include <chrono>
#include <utility>

namespace normserve {
namespace {

using Clock = std::chrono::steady_clock;

template <typename Done>
auto Measured(JobObserver& observer, JobObserver::Job job, Done done) {
  observer.JobSubmitted(job);
  return [&observer, job, done = std::move(done), start = Clock::now()](auto result) mutable {
    observer.JobEnded(job, absl::FromChrono(Clock::now() - start), result.ok());
    std::move(done)(std::move(result));
  };
}

}  // namespace

void MeasuredEngine::Forward(ForwardJob job, ForwardDone done) {
  engine_.Forward(std::move(job), Measured(observer_, JobObserver::Job::kForward, std::move(done)));
}

void MeasuredEngine::Backward(BackwardJob job, BackwardDone done) {
  engine_.Backward(std::move(job), Measured(observer_, JobObserver::Job::kBackward, std::move(done)));
}

}  // namespace normserve
