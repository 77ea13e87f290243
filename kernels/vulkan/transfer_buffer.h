// A device buffer that the host writes before a job and reads after it, with or without staging.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/vulkan/buffer.h"
#include "kernels/vulkan/buffer_pool.h"
#include "kernels/vulkan/recorder.h"

namespace normserve::vulkan {

// Where device buffers are mapped (unified memory), host and device share one buffer and nothing is copied. Elsewhere
// the bytes go through an upload buffer before the job and a readback buffer after it.
//
// Copies share the buffers. Used by one thread at a time.
class TransferBuffer {
 public:
  enum class Direction { kToDevice, kFromDevice, kBoth };

  // Errors as BufferPool::Acquire.
  static absl::StatusOr<TransferBuffer> Create(BufferPool& pool, uint64_t size_bytes, Direction direction);

  // The buffer that shaders use.
  const std::shared_ptr<Buffer>& device() const { return device_; }
  // Where the host writes before the job. Null if the direction is kFromDevice.
  std::byte* host_input() const { return input_ ? input_->mapped() : nullptr; }
  // Where the host reads after the job. Null if the direction is kToDevice.
  std::byte* host_output() const { return output_ ? output_->mapped() : nullptr; }
  // Gives the upload and readback buffers back, if there are any: what follows uses device() alone.
  void DropHostSide() {
    input_.reset();
    output_.reset();
  }
  // Whether RecordUpload and RecordDownload record copies.
  bool staged() const { return device_->mapped() == nullptr; }

  // Hands what the host wrote to the job: call after writing, before the dispatches. If staged(), a barrier must
  // follow.
  absl::Status RecordUpload(CommandRecorder& recorder) const;
  // Makes `size` bytes from `offset` on readable after the job: call after the dispatches and, if staged(), a barrier.
  void RecordDownload(CommandRecorder& recorder, uint64_t offset, uint64_t size) const;
  // Makes those bytes visible to the host: call once the job is done, before reading.
  absl::Status FinishDownload(uint64_t offset, uint64_t size) const { return output_->Invalidate(offset, size); }

 private:
  TransferBuffer() = default;

  std::shared_ptr<Buffer> device_;
  std::shared_ptr<Buffer> input_;   // device_ itself where it is mapped
  std::shared_ptr<Buffer> output_;  // device_ itself where it is mapped
};

}  // namespace normserve::vulkan
