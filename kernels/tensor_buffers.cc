#include "kernels/tensor_buffers.h"

#include <utility>

#include "kernels/tensor_segments.h"

namespace normserve {
namespace {

using vulkan::TransferBuffer;

// A shader may read a run of values up to the end of its last chunk.
constexpr uint64_t kPaddingBytes = kChunkValues * sizeof(float);
// An output in pieces smaller than this, on average, is joined: handing out slivers costs more than copying them.
constexpr size_t kSmallestPieceBytes = 16 * 1024;

uint64_t Padded(uint64_t bytes) { return (bytes + kPaddingBytes - 1) / kPaddingBytes * kPaddingBytes; }

}  // namespace

absl::StatusOr<TensorBuffers> TensorBuffers::Acquire(const BatchShape& shape, ElementType type,
                                                     std::shared_ptr<const DispatchPlan> plan, vulkan::BufferPool& pool,
                                                     TransferBuffer::Direction direction) {
  TensorBuffers tensor(shape, type, std::move(plan));
  for (const PlanBlock& block : tensor.plan_->blocks) {
    std::vector<TransferBuffer>& windows = tensor.blocks_.emplace_back();
    for (const PlanWindow& window : block.windows) {
      const auto bytes = static_cast<uint64_t>(block.channel_count * window.value_count * ElementSizeBytes(type));
      auto buffer = TransferBuffer::Create(pool, Padded(bytes), direction);
      if (!buffer.ok()) return buffer.status();
      windows.push_back(*std::move(buffer));
    }
  }
  return tensor;
}

void TensorBuffers::Fill(const InputTensor& input) {
  WindowBytes bytes;
  for (const std::vector<TransferBuffer>& block : blocks_) {
    std::vector<std::byte*>& windows = bytes.emplace_back();
    for (const TransferBuffer& window : block) windows.push_back(window.host_input());
  }
  Scatter(input, *plan_, bytes);
}

int64_t TensorBuffers::size_bytes() const {
  uint64_t bytes = 0;
  for (const std::vector<TransferBuffer>& block : blocks_) {
    for (const TransferBuffer& window : block) bytes += window.device()->size_bytes();
  }
  return static_cast<int64_t>(bytes);
}

void TensorBuffers::DropHostSide() {
  for (std::vector<TransferBuffer>& block : blocks_) {
    for (TransferBuffer& window : block) window.DropHostSide();
  }
}

absl::Status TensorBuffers::RecordUpload(vulkan::CommandRecorder& recorder) const {
  for (const std::vector<TransferBuffer>& block : blocks_) {
    for (const TransferBuffer& window : block) {
      if (absl::Status status = window.RecordUpload(recorder); !status.ok()) return status;
    }
  }
  return absl::OkStatus();
}

void TensorBuffers::RecordDownload(vulkan::CommandRecorder& recorder) const {
  for (const std::vector<TransferBuffer>& block : blocks_) {
    for (const TransferBuffer& window : block) window.RecordDownload(recorder, 0, window.device()->size_bytes());
  }
}

absl::StatusOr<OutputTensor> TensorBuffers::TakeOutput() {
  auto buffers = std::make_shared<std::vector<TransferBuffer>>();
  WindowBytes outputs;
  for (std::vector<TransferBuffer>& block : blocks_) {
    std::vector<std::byte*>& windows = outputs.emplace_back();
    for (TransferBuffer& window : block) {
      if (absl::Status status = window.FinishDownload(0, window.device()->size_bytes()); !status.ok()) return status;
      windows.push_back(window.host_output());
      buffers->push_back(std::move(window));
    }
  }
  OutputTensor output{.pieces = GatherPieces(shape_, type_, *plan_, outputs), .owner = buffers};
  const auto size_bytes = static_cast<size_t>(shape_.SizeBytes(type_));
  if (output.pieces.size() == 1 || size_bytes / output.pieces.size() >= kSmallestPieceBytes) return output;

  auto joined = std::make_shared<std::vector<std::byte>>();
  joined->reserve(size_bytes);
  for (absl::Span<const std::byte> piece : output.pieces) joined->insert(joined->end(), piece.begin(), piece.end());
  return OutputTensor{.pieces = {absl::MakeConstSpan(*joined)}, .owner = joined};
}

}  // namespace normserve
