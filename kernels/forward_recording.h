// One Forward as dispatches: buffers filled, commands recorded, results found again.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/channel_nodes.h"
#include "kernels/dispatch_plan.h"
#include "kernels/engine.h"
#include "kernels/job_recording.h"
#include "kernels/pipelines.h"
#include "kernels/tensor_buffers.h"

namespace normserve {

// The buffers of a Forward and what is needed to read its results. Made before the job is submitted, read after it is
// done; not thread-safe.
class ForwardRecording {
 public:
  // Acquires buffers, copies the input in and records the dispatches. Blocks of the plan do not depend on each other
  // and share their barriers: a batch in one block and window is two dispatches with one barrier in training (moments,
  // normalise) and one dispatch in evaluation.
  // Errors: RESOURCE_EXHAUSTED (DEVICE_MEMORY), and what the driver says; all buffers are back in the pool then.
  static absl::StatusOr<std::unique_ptr<ForwardRecording>> Create(const ForwardJob& job,
                                                                  std::shared_ptr<const DispatchPlan> plan,
                                                                  const JobResources& resources);

  // To be submitted; once.
  vulkan::Recording TakeCommands() { return std::move(commands_.front()); }

  // After the job is done.
  absl::StatusOr<ForwardResult> TakeResult();

 private:
  ForwardRecording(const ForwardJob& job, std::shared_ptr<const DispatchPlan> plan);

  absl::Status AcquireBuffers(vulkan::BufferPool& pool);
  void FillParameters(const ForwardJob& job, const PlanBlock& block, float* to) const;
  absl::Status Record(const JobResources& resources);
  absl::Status RecordMoments(Pipelines& pipelines, vulkan::CommandRecorder& recorder) const;
  absl::Status RecordNormalise(Pipelines& pipelines, vulkan::CommandRecorder& recorder) const;
  absl::StatusOr<Moments> ReadMoments() const;

  const BatchShape shape_;
  const ElementType type_;
  const std::shared_ptr<const DispatchPlan> plan_;
  const bool from_batch_;    // normalised with the batch's own moments
  const bool need_moments_;  // from_batch_, or wanted
  const bool keep_input_;
  const float epsilon_;
  // x before; y after, in its place, unless the input is kept and has `output_` beside it.
  std::optional<TensorBuffers> input_;
  std::optional<TensorBuffers> output_;
  std::vector<vulkan::TransferBuffer> parameters_;  // by block: level weights, then four floats a channel
  std::optional<ChannelNodes> nodes_;
  std::vector<vulkan::Recording> commands_;  // one, until it is taken
};

}  // namespace normserve
