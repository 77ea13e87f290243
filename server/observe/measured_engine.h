// An engine whose jobs are counted and timed.
#pragma once

#include "absl/time/time.h"
#include "kernels/engine.h"

namespace normserve {

// Thread-safe.
class JobObserver {
 public:
  virtual ~JobObserver() = default;

  enum class Job { kForward, kBackward };
  // A job is with the engine now, ...
  virtual void JobSubmitted(Job job) = 0;
  // ... and has left it, result on the host. Quick: called on the engine's thread.
  virtual void JobEnded(Job job, absl::Duration duration, bool ok) = 0;
};

// Hands every job to `engine` and tells `observer` of it. Both outlive this.
class MeasuredEngine final : public Engine {
 public:
  MeasuredEngine(Engine& engine, JobObserver& observer) : engine_(engine), observer_(observer) {}

  void Forward(ForwardJob job, ForwardDone done) override;
  void Backward(BackwardJob job, BackwardDone done) override;

 private:
  Engine& engine_;
  JobObserver& observer_;
};

}  // namespace normserve
