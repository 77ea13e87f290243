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
  vulkan::Recording TakeCommands() { return *std::move(commands_); }

  // After the job is done.
  absl::StatusOr<ForwardResult> TakeResult() &&;

 private:
  struct Window {
    vulkan::TransferBuffer data;  // x before, y after: normalised in place
  };
  struct Block {
    std::vector<Window> windows;
    std::unique_ptr<vulkan::TransferBuffer> parameters;  // level weights, then four floats a channel
    std::unique_ptr<vulkan::TransferBuffer> nodes;       // of each merge step, then the moments; null without moments
    uint32_t moments_first = 0;                          // node index of the moments in `nodes`
  };

  ForwardRecording(const ForwardJob& job, DispatchPlan plan);

  absl::Status AcquireBuffers(vulkan::BufferPool& pool);
  absl::Status FillBuffers(const ForwardJob& job);
  void FillParameters(const ForwardJob& job, const PlanBlock& block, float* to) const;
  absl::Status Record(const ForwardPipelines& pipelines, vulkan::Device& device, vulkan::CommandPool& commands);
  absl::Status RecordUploads(vulkan::CommandRecorder& recorder) const;
  void RecordMoments(const ForwardPipelines& pipelines, vulkan::CommandRecorder& recorder) const;
  void RecordMerges(const ForwardPipelines& pipelines, vulkan::CommandRecorder& recorder) const;
  void RecordNormalise(const ForwardPipelines& pipelines, vulkan::CommandRecorder& recorder) const;
  void RecordDownloads(vulkan::CommandRecorder& recorder) const;
  absl::StatusOr<Moments> ReadMoments() const;

  const BatchShape shape_;
  const DispatchPlan plan_;
  const bool from_batch_;    // normalised with the batch's own moments
  const bool need_moments_;  // from_batch_, or wanted
  const float epsilon_;
  // Node counts of a channel from tiles down; the nodes of step i start at step_first_[i] * channels.
  const std::vector<uint32_t> merge_steps_;
  std::vector<Block> blocks_;
  std::unique_ptr<vulkan::Recording> commands_;
};

}  // namespace normserve
