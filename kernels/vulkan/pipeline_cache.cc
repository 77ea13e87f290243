#include "kernels/vulkan/pipeline_cache.h"

namespace normserve::vulkan {

absl::StatusOr<const ComputePipeline*> PipelineCache::Get(const Shader& shader,
                                                          absl::Span<const uint32_t> specialization) {
  Entry* entry = nullptr;
  {
    absl::MutexLock lock(&mu_);
    std::unique_ptr<Entry>& slot =
        entries_[Key(shader.id, std::vector<uint32_t>(specialization.begin(), specialization.end()))];
    if (slot == nullptr) slot = std::make_unique<Entry>();
    entry = slot.get();
  }
  absl::MutexLock lock(&entry->mu);
  if (entry->pipeline == nullptr) {
    auto pipeline = ComputePipeline::Create(device_, shader, specialization);
    if (!pipeline.ok()) return pipeline.status();
    entry->pipeline = *std::move(pipeline);
    absl::MutexLock count_lock(&mu_);
    ++num_pipelines_;
  }
  return entry->pipeline.get();
}

size_t PipelineCache::size() const {
  absl::MutexLock lock(&mu_);
  return num_pipelines_;
}

}  // namespace normserve::vulkan
