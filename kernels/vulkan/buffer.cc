#include "kernels/vulkan/buffer.h"

#include "kernels/check.h"
#include "kernels/vulkan/buffer_pool.h"
#include "kernels/vulkan/buffer_slab.h"

namespace normserve::vulkan {

Buffer::~Buffer() { pool_->Release(block_); }

VkBuffer Buffer::handle() const { return block_->buffer; }

BufferUsage Buffer::usage() const { return block_->slab->usage(); }

std::byte* Buffer::mapped() const { return block_->slab->VisibleAddress(*block_); }

absl::Status Buffer::Flush(uint64_t offset, uint64_t size) const {
  NORMSERVE_CHECK(mapped() != nullptr);
  NORMSERVE_CHECK(offset <= size_bytes_ && size <= size_bytes_ - offset);
  return block_->slab->Flush(*block_, offset, size);
}

absl::Status Buffer::Invalidate(uint64_t offset, uint64_t size) const {
  NORMSERVE_CHECK(mapped() != nullptr);
  NORMSERVE_CHECK(offset <= size_bytes_ && size <= size_bytes_ - offset);
  return block_->slab->Invalidate(*block_, offset, size);
}

void Buffer::RecordUse(uint64_t timeline_value) const {
  // One submit thread per device calls this, with rising values.
  block_->last_use.store(timeline_value, std::memory_order_release);
}

}  // namespace normserve::vulkan
