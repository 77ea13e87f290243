#include "kernels/vulkan/transfer_buffer.h"

#include <utility>

namespace normserve::vulkan {

absl::StatusOr<TransferBuffer> TransferBuffer::Create(BufferPool& pool, uint64_t size_bytes, Direction direction) {
  TransferBuffer made;
  auto device = pool.Acquire(size_bytes, BufferUsage::kDevice);
  if (!device.ok()) return device.status();
  made.device_ = *std::move(device);
  if (direction != Direction::kFromDevice) {
    made.input_ = made.device_;
    if (made.staged()) {
      auto upload = pool.Acquire(size_bytes, BufferUsage::kUpload);
      if (!upload.ok()) return upload.status();
      made.input_ = *std::move(upload);
    }
  }
  if (direction != Direction::kToDevice) {
    made.output_ = made.device_;
    if (made.staged()) {
      auto readback = pool.Acquire(size_bytes, BufferUsage::kReadback);
      if (!readback.ok()) return readback.status();
      made.output_ = *std::move(readback);
    }
  }
  return made;
}

absl::Status TransferBuffer::RecordUpload(CommandRecorder& recorder) const {
  if (absl::Status status = input_->Flush(); !status.ok()) return status;
  if (staged()) recorder.CopyBuffer(input_, 0, device_, 0, device_->size_bytes());
  return absl::OkStatus();
}

void TransferBuffer::RecordDownload(CommandRecorder& recorder, uint64_t offset, uint64_t size) const {
  if (staged()) recorder.CopyBuffer(device_, offset, output_, offset, size);
}

}  // namespace normserve::vulkan
