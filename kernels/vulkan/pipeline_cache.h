// Every pipeline of a device, made once.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "kernels/vulkan/pipeline.h"

namespace normserve::vulkan {

// Keyed by shader id and specialisation constants, so the number of pipelines does not grow with the tensors served.
// Drivers compile on the first dispatch rather than here: warm up with one. Thread-safe. The device outlives it.
class PipelineCache {
 public:
  explicit PipelineCache(Device& device) : device_(device) {}
  PipelineCache(const PipelineCache&) = delete;
  PipelineCache& operator=(const PipelineCache&) = delete;

  // The pipeline, made now if it is the first call; it lives as long as the cache. Callers that want the same one
  // meanwhile wait for it, others do not. A failure is not remembered.
  absl::StatusOr<const ComputePipeline*> Get(const Shader& shader, absl::Span<const uint32_t> specialization);

  // Pipelines made so far.
  size_t size() const;

 private:
  struct Entry {
    absl::Mutex mu;  // taken before the cache's own
    std::unique_ptr<ComputePipeline> pipeline ABSL_GUARDED_BY(mu);
  };
  using Key = std::pair<std::string, std::vector<uint32_t>>;

  Device& device_;
  mutable absl::Mutex mu_;
  std::map<Key, std::unique_ptr<Entry>> entries_ ABSL_GUARDED_BY(mu_);
  size_t num_pipelines_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace normserve::vulkan
