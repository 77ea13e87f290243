#include "kernels/vulkan/buffer_pool.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/error_reason.h"
#include "kernels/vulkan/buffer_slab.h"
#include "kernels/vulkan/result.h"
#include "kernels/vulkan/size_class.h"

namespace normserve::vulkan {
namespace {

constexpr uint64_t kSlabBytes = uint64_t{1} << 20;
constexpr uint64_t kMaxBlocksPerSlab = 64;
constexpr int kPoison = 0xFF;

// Blocks above a quarter of a slab get memory of their own.
uint64_t BlocksPerSlab(uint64_t class_bytes) {
  if (class_bytes > kSlabBytes / 4) return 1;
  return std::min(kSlabBytes / class_bytes, kMaxBlocksPerSlab);
}

absl::Status MemoryError(const std::string& message) {
  return MakeError(absl::StatusCode::kResourceExhausted, ErrorReason::kDeviceMemory, message);
}

}  // namespace

absl::StatusOr<std::unique_ptr<BufferPool>> BufferPool::Create(Device& device, const BufferPoolOptions& options) {
  const uint64_t max_total_bytes =
      options.max_total_bytes != 0 ? options.max_total_bytes : device.limits().heap_bytes / 4 * 3;
  return std::unique_ptr<BufferPool>(new BufferPool(device, options, max_total_bytes));
}

BufferPool::BufferPool(Device& device, const BufferPoolOptions& options, uint64_t max_total_bytes)
    : device_(device), options_(options), max_total_bytes_(max_total_bytes) {}

BufferPool::~BufferPool() {
  Trim();
  absl::MutexLock lock(&mu_);
  NORMSERVE_CHECK(counters_.buffers_in_use == 0);
}

uint64_t BufferPool::ClassBytes(uint64_t size_bytes) const {
  const uint64_t class_bytes = SizeClass(size_bytes);
  return class_bytes <= device_.limits().max_allocation_size ? class_bytes : size_bytes;
}

absl::StatusOr<std::shared_ptr<Buffer>> BufferPool::Acquire(uint64_t size_bytes, BufferUsage usage) {
  NORMSERVE_CHECK(size_bytes >= 1);
  if (device_.lost()) return DeviceLostError(device_.limits().name);
  if (size_bytes > device_.limits().max_allocation_size) {
    return MemoryError(absl::StrCat("a buffer of ", size_bytes, " bytes: device \"", device_.limits().name,
                                    "\" allows ", device_.limits().max_allocation_size, " in one allocation"));
  }
  const ClassKey key(usage, ClassBytes(size_bytes));
  PooledBlock* block = nullptr;
  {
    absl::MutexLock lock(&mu_);
    block = TakeIdleBlock(key);
  }
  if (block == nullptr) {
    auto added = TakeNewBlock(key);
    if (!added.ok()) return added.status();
    block = *added;
  }
  // From here on dropping the buffer gives the block back.
  std::shared_ptr<Buffer> buffer(new Buffer(this, block, size_bytes));
  absl::Status status = CheckReusable(*block);
  if (!status.ok()) return status;
  if (options_.poison) Poison(*block);
  return buffer;
}

PooledBlock* BufferPool::TakeIdleBlock(const ClassKey& key) {
  const auto found = idle_.find(key);
  if (found == idle_.end() || found->second.empty()) return nullptr;
  PooledBlock* block = found->second.back();
  found->second.pop_back();
  ++block->slab->num_in_use;
  counters_.idle_bytes -= key.second;
  counters_.in_use_bytes += key.second;
  ++counters_.buffers_in_use;
  return block;
}

absl::Status BufferPool::Reserve(uint64_t bytes) {
  SlabList freed;
  uint64_t held = 0;
  {
    absl::MutexLock lock(&mu_);
    if (bytes <= max_total_bytes_) {
      if (total_bytes_ > max_total_bytes_ - bytes) {
        freed = TakeIdleSlabs(counters_.idle_bytes, max_total_bytes_ - bytes);
      }
      if (total_bytes_ <= max_total_bytes_ - bytes) {
        total_bytes_ += bytes;
        bytes = 0;
      }
    }
    held = total_bytes_;
  }
  Free(std::move(freed));
  if (bytes == 0) return absl::OkStatus();
  return MemoryError(absl::StrCat("device memory is used up: ", bytes, " bytes more would exceed the limit of ",
                                  max_total_bytes_, ", of which ", held,
                                  " are held; try again later, or raise the limit"));
}

absl::StatusOr<PooledBlock*> BufferPool::TakeNewBlock(const ClassKey& key) {
  const auto [usage, class_bytes] = key;
  const uint64_t num_blocks = BlocksPerSlab(class_bytes);
  const uint64_t reserved = class_bytes * num_blocks;
  absl::Status status = Reserve(reserved);
  if (!status.ok()) return status;

  // Without the lock: a driver may take long over a big allocation.
  auto slab = BufferSlab::Create(device_, class_bytes, num_blocks, usage);
  if (absl::IsResourceExhausted(slab.status())) {
    Trim();
    slab = BufferSlab::Create(device_, class_bytes, num_blocks, usage);
  }
  absl::MutexLock lock(&mu_);
  total_bytes_ -= reserved;
  if (!slab.ok()) return slab.status();
  total_bytes_ += (*slab)->size_bytes();
  ++counters_.device_allocations;
  std::vector<PooledBlock*>& idle = idle_[key];
  for (PooledBlock& block : (*slab)->blocks()) idle.push_back(&block);
  counters_.idle_bytes += reserved;
  slabs_.push_back(*std::move(slab));
  return TakeIdleBlock(key);
}

void BufferPool::Release(PooledBlock* block) {
  if (options_.poison) Poison(*block);
  SlabList freed;
  {
    absl::MutexLock lock(&mu_);
    BufferSlab& slab = *block->slab;
    idle_[ClassKey(slab.usage(), slab.class_bytes())].push_back(block);
    NORMSERVE_CHECK(slab.num_in_use > 0);
    --slab.num_in_use;
    slab.idle_since = ++clock_;
    counters_.idle_bytes += slab.class_bytes();
    counters_.in_use_bytes -= slab.class_bytes();
    --counters_.buffers_in_use;
    if (counters_.idle_bytes > options_.max_idle_bytes) freed = TakeIdleSlabs(options_.max_idle_bytes, total_bytes_);
  }
  Free(std::move(freed));
}

BufferPool::SlabList BufferPool::TakeIdleSlabs(uint64_t idle_bytes, uint64_t total_bytes) {
  SlabList taken;
  while (counters_.idle_bytes > idle_bytes || total_bytes_ > total_bytes) {
    auto oldest = slabs_.end();
    for (auto slab = slabs_.begin(); slab != slabs_.end(); ++slab) {
      if ((*slab)->num_in_use > 0) continue;
      if (oldest == slabs_.end() || (*slab)->idle_since < (*oldest)->idle_since) oldest = slab;
    }
    if (oldest == slabs_.end()) break;
    BufferSlab& slab = **oldest;
    std::vector<PooledBlock*>& idle = idle_[ClassKey(slab.usage(), slab.class_bytes())];
    idle.erase(std::remove_if(idle.begin(), idle.end(), [&slab](PooledBlock* block) { return block->slab == &slab; }),
               idle.end());
    counters_.idle_bytes -= slab.class_bytes() * slab.blocks().size();
    total_bytes_ -= slab.size_bytes();
    taken.push_back(std::move(*oldest));
    slabs_.erase(oldest);
  }
  return taken;
}

void BufferPool::Free(SlabList slabs) const {
  for (std::unique_ptr<BufferSlab>& slab : slabs) {
    // A lost device has done with everything.
    for (const PooledBlock& block : slab->blocks()) CheckReusable(block).IgnoreError();
    slab.reset();
  }
}

void BufferPool::Trim() {
  SlabList freed;
  {
    absl::MutexLock lock(&mu_);
    freed = TakeIdleSlabs(0, 0);
  }
  Free(std::move(freed));
}

BufferPoolCounters BufferPool::counters() const {
  absl::MutexLock lock(&mu_);
  return counters_;
}

absl::Status BufferPool::CheckReusable(const PooledBlock& block) const {
  const uint64_t last_use = block.last_use.load(std::memory_order_acquire);
  if (last_use == 0) return absl::OkStatus();
  auto completed = device_.timeline().Completed();
  if (device_.lost() || !completed.ok()) return DeviceLostError(device_.limits().name);
  const bool device_has_done_with_the_block = last_use <= *completed;
  NORMSERVE_CHECK(device_has_done_with_the_block);
  return absl::OkStatus();
}

void BufferPool::Poison(const PooledBlock& block) const {
  const BufferSlab& slab = *block.slab;
  std::byte* address = slab.HostAddress(block);
  if (address == nullptr) return;
  std::memset(address, kPoison, slab.class_bytes());
  slab.Flush(block, 0, slab.class_bytes()).IgnoreError();
}

}  // namespace normserve::vulkan
