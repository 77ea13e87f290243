// Whether the shaders' variants give the model's bits on a device.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "kernels/dispatch_plan.h"
#include "kernels/engine.h"

namespace normserve {

// One way of the shaders: a driver may get one wrong and another right.
struct ShaderVariant {
  bool backward = false;
  Access access = Access::kScalar;
  ElementType type = ElementType::kFloat32;

  friend bool operator==(const ShaderVariant&, const ShaderVariant&) = default;
};

// "backward, columns, BFLOAT16".
std::string VariantName(const ShaderVariant& variant);

enum class SelfTestResult { kPending, kPassed, kFailed };

struct SelfTestReport {
  struct Entry {
    ShaderVariant variant;
    SelfTestResult result = SelfTestResult::kPending;  // kPending: not used yet
  };
  std::vector<Entry> entries;            // every variant
  std::optional<bool> keeps_subnormals;  // whether the device computes with float32 subnormals; nothing: not known yet
};

// Small batches of each variant, with what the model makes of them. A variant is tested when it is first used: its test
// jobs are queued right before the first job, so that they are over when that job is.
//
// Thread-safe. Outlives the jobs.
class SelfTest {
 public:
  // `model` computes on the caller's thread, as BitModelEngine does.
  explicit SelfTest(std::unique_ptr<Engine> model) : model_(std::move(model)) {}

  // Queues the test jobs of `variant` by `forward` or `backward`, unless that was done before and they ran. Returns
  // once they are queued.
  void Begin(const ShaderVariant& variant, absl::FunctionRef<void(ForwardJob, ForwardDone)> forward,
             absl::FunctionRef<void(BackwardJob, BackwardDone)> backward) ABSL_LOCKS_EXCLUDED(begin_mutex_);

  SelfTestResult result(const ShaderVariant& variant) const ABSL_LOCKS_EXCLUDED(mutex_);
  // Of a variant that is still kPending once its test jobs are over: why one of them did not run. The next Begin queues
  // them again.
  absl::Status not_run(const ShaderVariant& variant) const ABSL_LOCKS_EXCLUDED(mutex_);
  SelfTestReport Report() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  static constexpr size_t kVariants = 2 * 4 * 3;

  struct State {
    int jobs_left = 0;
    bool failed = false;
    bool done = false;
    bool begun = false;
    bool incomplete = false;  // whether a job of this try did not run
    absl::Status not_run;     // why, until a try is complete
  };
  static size_t IndexOf(const ShaderVariant& variant);
  static SelfTestResult ResultOf(const State& state);

  void BeginForward(size_t index, const ShaderVariant& variant,
                    absl::FunctionRef<void(ForwardJob, ForwardDone)> submit);
  void BeginBackward(size_t index, const ShaderVariant& variant,
                     absl::FunctionRef<void(BackwardJob, BackwardDone)> submit);
  void BeginSubnormals(absl::FunctionRef<void(ForwardJob, ForwardDone)> submit);
  void JobDone(size_t index, absl::Status ran, bool right) ABSL_LOCKS_EXCLUDED(mutex_);

  const std::unique_ptr<Engine> model_;

  absl::Mutex begin_mutex_;  // held while test jobs are queued, so that nobody overtakes them; before mutex_

  mutable absl::Mutex mutex_;
  std::array<State, kVariants> states_ ABSL_GUARDED_BY(mutex_);
  std::optional<bool> keeps_subnormals_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace normserve
