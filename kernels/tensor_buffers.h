// A batch in device buffers, as a plan cuts it up.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/batch_norm.h"
#include "kernels/dispatch_plan.h"
#include "kernels/vulkan/buffer_pool.h"
#include "kernels/vulkan/recorder.h"
#include "kernels/vulkan/transfer_buffer.h"

namespace normserve {

// One binding of a shader over all of `buffer`.
inline vulkan::BufferBinding WholeBuffer(const vulkan::TransferBuffer& buffer) { return {buffer.device(), 0, 0}; }

// Movable; used by one thread at a time. The buffers go back to the pool with it, or with the output taken from it.
class TensorBuffers {
 public:
  // A buffer for each window of each block, for a tensor of `shape` and `type`. Errors as BufferPool::Acquire.
  static absl::StatusOr<TensorBuffers> Acquire(const BatchShape& shape, ElementType type,
                                               std::shared_ptr<const DispatchPlan> plan, vulkan::BufferPool& pool,
                                               vulkan::TransferBuffer::Direction direction);

  // Copies `input`, of this shape and type, to where the shaders look for it. Before RecordUpload.
  void Fill(const InputTensor& input);

  const vulkan::TransferBuffer& window(size_t block, size_t window) const { return blocks_[block][window]; }
  // Whether uploads and downloads record copies, which want a barrier.
  bool staged() const { return blocks_.front().front().staged(); }
  // Of device memory.
  int64_t size_bytes() const;

  // Gives back what only uploads and downloads need.
  void DropHostSide();

  absl::Status RecordUpload(vulkan::CommandRecorder& recorder) const;
  void RecordDownload(vulkan::CommandRecorder& recorder) const;

  // The tensor as the job left it. After the job is done; once.
  absl::StatusOr<OutputTensor> TakeOutput();

 private:
  TensorBuffers(const BatchShape& shape, ElementType type, std::shared_ptr<const DispatchPlan> plan)
      : shape_(shape), type_(type), plan_(std::move(plan)) {}

  BatchShape shape_;
  ElementType type_;
  std::shared_ptr<const DispatchPlan> plan_;
  std::vector<std::vector<vulkan::TransferBuffer>> blocks_;  // their windows
};

}  // namespace normserve
