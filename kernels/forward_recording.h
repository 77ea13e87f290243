// One Forward as dispatches: buffers filled, commands recorded, results found again.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/dispatch_plan.h"
#include "kernels/engine.h"
#include "kernels/forward_pipelines.h"
#include "kernels/vulkan/buffer_pool.h"
#include "kernels/vulkan/command_pool.h"
#include "kernels/vulkan/transfer_buffer.h"

namespace normserve {

// The buffers of a Forward and what is needed to read its results. Made before the job is submitted, read after it is
// done; not thread-safe.
class ForwardRecording {
 public:
  // Acquires buffers, copies the input in and records the dispatches. Blocks of the plan do not depend on each other
  // and share their barriers: a batch in one block and window is two dispatches with one barrier in training (moments,
  // normalise) and one dispatch in evaluation.
  // Errors: RESOURCE_EXHAUSTED (DEVICE_MEMORY), and what the driver says; all buffers are back in the pool then.
  static absl::StatusOr<std::unique_ptr<ForwardRecording>> Create(const ForwardJob& job, DispatchPlan plan,
                                                                  const ForwardPipelines& pipelines,
                                                                  vulkan::Device& device, vulkan::BufferPool& pool,
                                                                  vulkan::CommandPool& commands);

  // To be submitted; once.
  vulkan::Recording TakeCommands() { return std::move(commands_.front()); }

  // After the job is done.
  absl::StatusOr<ForwardResult> TakeResult();

 private:
  struct Block {
    std::vector<vulkan::TransferBuffer> windows;     // x before, y after: normalised in place
    std::vector<vulkan::TransferBuffer> parameters;  // one: level weights, then four floats a channel
    std::vector<vulkan::TransferBuffer> nodes;       // one, or none without moments: each merge step, then moments
  };
  // One binding of a shader over all of `buffer`.
  static vulkan::BufferBinding All(const vulkan::TransferBuffer& buffer) { return {buffer.device(), 0, 0}; }

  ForwardRecording(const ForwardJob& job, DispatchPlan plan);

  absl::Status AcquireBuffers(vulkan::BufferPool& pool);
  void FillBuffers(const ForwardJob& job);
  void FillParameters(const ForwardJob& job, const PlanBlock& block, float* to) const;
  absl::Status Record(const ForwardPipelines& pipelines, vulkan::Device& device, vulkan::CommandPool& commands);
  absl::Status RecordUploads(vulkan::CommandRecorder& recorder) const;
  void RecordMoments(const ForwardPipelines& pipelines, vulkan::CommandRecorder& recorder) const;
  void RecordMerges(const ForwardPipelines& pipelines, vulkan::CommandRecorder& recorder) const;
  void RecordNormalise(const ForwardPipelines& pipelines, vulkan::CommandRecorder& recorder) const;
  void RecordDownloads(vulkan::CommandRecorder& recorder) const;
  // What a shader takes for S, and how many values long a plane of `window` then is.
  uint32_t Spatial(const PlanWindow& window) const;
  // Index of the first node of merge step `step` in a block's nodes; step_counts_.size() is that of the moments.
  uint32_t FirstNode(const PlanBlock& block, size_t step) const;
  // Step whose nodes are the moments of the whole channels.
  size_t MomentsStep() const { return from_batch_ ? step_counts_.size() : step_counts_.size() - 1; }
  absl::StatusOr<Moments> ReadMoments() const;
  absl::StatusOr<OutputTensor> TakeOutput();

  const BatchShape shape_;
  const DispatchPlan plan_;
  const bool from_batch_;    // normalised with the batch's own moments
  const bool need_moments_;  // from_batch_, or wanted
  const float epsilon_;
  // Nodes of a channel at each merge step: tiles first, then fewer.
  const std::vector<uint32_t> step_counts_;
  std::vector<Block> blocks_;
  std::vector<vulkan::Recording> commands_;  // one, until it is taken
};

}  // namespace normserve
