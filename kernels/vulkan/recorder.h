// Records the work of one job.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/vulkan/buffer.h"
#include "kernels/vulkan/command_pool.h"
#include "kernels/vulkan/device.h"
#include "kernels/vulkan/pipeline.h"

namespace normserve::vulkan {

// The part of a buffer that a shader sees as one storage buffer.
struct BufferBinding {
  std::shared_ptr<Buffer> buffer;
  uint64_t offset = 0;  // multiple of min_storage_buffer_offset_alignment
  uint64_t range = 0;   // bytes, at most max_storage_buffer_range; 0: from offset to the buffer's end
};

// A finished command buffer with every buffer that it uses. Movable; submit it once.
class Recording {
 public:
  Recording(Recording&&) = default;
  Recording& operator=(Recording&&) = default;

  VkCommandBuffer handle() const { return slot_->handle(); }
  // Notes on every buffer that work which completes with `timeline_value` uses it. For the submitter.
  void RecordUse(uint64_t timeline_value) const;

 private:
  friend class CommandRecorder;
  Recording(PooledCommandSlot slot, std::vector<std::shared_ptr<Buffer>> buffers)
      : buffers_(std::move(buffers)), slot_(std::move(slot)) {}

  std::vector<std::shared_ptr<Buffer>> buffers_;
  PooledCommandSlot slot_;
};

// One recorder per job, used by one thread; any number of them beside each other. Nothing here waits.
//
// What the host wrote (and flushed) before Submit is visible to the job. Jobs are not ordered against each other on the
// device: one that reads what another writes is submitted after that one's `done`.
//
// Limits broken by the caller (a range over the device's limit, a misaligned offset, a range beyond its buffer, a
// wrong number of bindings or push constant bytes, a grid over the limit or with a zero) are broken invariants and end
// the process. What the driver refuses is kept and returned by Finish.
class CommandRecorder {
 public:
  static absl::StatusOr<CommandRecorder> Begin(Device& device, CommandPool& commands);
  CommandRecorder(CommandRecorder&&) = default;

  // Runs `pipeline` over groups[0] x groups[1] x groups[2] workgroups. `bindings` are bindings 0, 1, … of set 0.
  void Dispatch(const ComputePipeline& pipeline, absl::Span<const BufferBinding> bindings,
                absl::Span<const std::byte> push_constants, std::array<uint32_t, 3> groups);

  // Copies `size` >= 1 bytes; nothing need be aligned.
  void CopyBuffer(const std::shared_ptr<Buffer>& source, uint64_t source_offset,
                  const std::shared_ptr<Buffer>& destination, uint64_t destination_offset, uint64_t size);

  // Everything after it sees what every dispatch and copy before it wrote, and starts only then. Without one between
  // them, two dispatches or copies may overlap in time.
  void Barrier();

  // Keeps `buffer` until the device has done with the job, though no command names it.
  void Keep(const std::shared_ptr<Buffer>& buffer);

  // Makes all results visible to the host once the job is done, and closes the recording. (Non-coherent buffers still
  // want Invalidate.) Returns the first error of any call before.
  absl::StatusOr<Recording> Finish() &&;

 private:
  CommandRecorder(Device& device, PooledCommandSlot slot) : device_(&device), slot_(std::move(slot)) {}
  void BindBuffers(const ComputePipeline& pipeline, absl::Span<const BufferBinding> bindings);

  Device* device_;
  PooledCommandSlot slot_;
  std::vector<std::shared_ptr<Buffer>> buffers_;
  absl::Status status_;
  // Of the dispatch at hand; members only so that their memory is used again.
  std::vector<VkDescriptorBufferInfo> infos_;
  std::vector<VkWriteDescriptorSet> writes_;
};

}  // namespace normserve::vulkan
