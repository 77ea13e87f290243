// One Backward as dispatches.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/channel_nodes.h"
#include "kernels/dispatch_plan.h"
#include "kernels/engine.h"
#include "kernels/job_recording.h"
#include "kernels/kept_tensor.h"
#include "kernels/tensor_buffers.h"

namespace normserve {

// As ForwardRecording. The kept input, if the job has one, was made by the same engine.
class BackwardRecording {
 public:
  // Two dispatches with one barrier for a batch in one block and window: gradient_sums, gradient_input. The sums alone
  // are one dispatch (and merge steps), a gradient from given sums is one.
  static absl::StatusOr<std::unique_ptr<BackwardRecording>> Create(const BackwardJob& job,
                                                                   std::shared_ptr<const DispatchPlan> plan,
                                                                   const JobResources& resources);

  vulkan::Recording TakeCommands() { return std::move(commands_.front()); }
  absl::StatusOr<BackwardResult> TakeResult();

 private:
  BackwardRecording(const BackwardJob& job, std::shared_ptr<const DispatchPlan> plan);

  absl::Status AcquireBuffers(const BackwardJob& job, vulkan::BufferPool& pool);
  void FillParameters(const BackwardJob& job, const PlanBlock& block, float* to) const;
  void FillSums(const PlanBlock& block, float* to) const;
  absl::Status Record(const JobResources& resources);
  absl::Status RecordUploads(vulkan::CommandRecorder& recorder) const;
  absl::Status RecordSums(Pipelines& pipelines, vulkan::CommandRecorder& recorder) const;
  absl::Status RecordGradient(Pipelines& pipelines, vulkan::CommandRecorder& recorder) const;
  absl::StatusOr<GradientSums> ReadSums() const;
  // Null where no shader needs x.
  const TensorBuffers* input() const { return kept_ ? &kept_->buffers() : input_ ? &*input_ : nullptr; }

  const BatchShape shape_;
  const ElementType type_;
  const std::shared_ptr<const DispatchPlan> plan_;
  const bool from_batch_;
  const bool want_grad_input_;
  const std::optional<GradientSums> given_sums_;
  const std::vector<double> given_squares_;  // [C] of given_sums_
  std::vector<float> powers_;                // [C]: what x - mean is multiplied by (shaders/gradient_sums.comp)
  std::shared_ptr<const KeptTensor> kept_;
  std::optional<TensorBuffers> input_;              // if it is not kept
  std::optional<TensorBuffers> gradient_;           // of the output before; of the input after, in its place
  std::vector<vulkan::TransferBuffer> parameters_;  // by block: level weights, then eight floats a channel
  std::optional<ChannelNodes> nodes_;               // unless nothing is summed and nothing needs sums
  std::vector<vulkan::Recording> commands_;         // one, until it is taken
};

}  // namespace normserve
