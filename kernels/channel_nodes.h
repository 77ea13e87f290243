// What is left of each channel while its tiles are merged, and at the end.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/dispatch_plan.h"
#include "kernels/vulkan/buffer_pool.h"
#include "kernels/vulkan/pipeline.h"
#include "kernels/vulkan/recorder.h"
#include "kernels/vulkan/transfer_buffer.h"

namespace normserve {

// A node buffer for each block: [C, nodes] for each merge step, tiles first, then the channels' results, [C].
// Movable; used by one thread at a time.
class ChannelNodes {
 public:
  struct Options {
    uint64_t node_bytes = 0;  // of one node
    // Whether the shader that uses the nodes merges the last of them and writes the results out; else the last merge
    // step leaves one, the result.
    bool user_merges = false;
    // Whether there are no tiles: each channel's node comes from the host, in place of a merge step.
    bool from_host = false;
  };
  // Errors as BufferPool::Acquire.
  static absl::StatusOr<ChannelNodes> Acquire(std::shared_ptr<const DispatchPlan> plan, const Options& options,
                                              vulkan::BufferPool& pool);

  const vulkan::TransferBuffer& buffer(size_t block) const { return buffers_[block]; }
  // Where the host puts the nodes of a block, [C]; only with from_host, before the upload.
  float* host_nodes(size_t block) const { return reinterpret_cast<float*>(buffers_[block].host_input()); }

  // Of what the user of the nodes finds: first node of a block, nodes of a channel, and their level.
  uint32_t first_in(size_t block) const { return FirstNode(block, counts_.size() - 1); }
  uint32_t count_in() const { return counts_.back(); }
  uint32_t level_in() const { return Level(counts_.size() - 1); }
  // First of a block's results.
  uint32_t first_result(size_t block) const {
    return FirstNode(block, options_.user_merges ? counts_.size() : counts_.size() - 1);
  }

  // Records all merge steps, each followed by a barrier. parameters[block] begins with the level table.
  void RecordMerges(const vulkan::ComputePipeline& merge, const std::vector<vulkan::TransferBuffer>& parameters,
                    vulkan::CommandRecorder& recorder) const;
  void RecordDownload(vulkan::CommandRecorder& recorder) const;
  // The results of a block. After the job is done.
  absl::StatusOr<const float*> Results(size_t block) const;

 private:
  ChannelNodes(std::shared_ptr<const DispatchPlan> plan, const Options& options);

  uint32_t FirstNode(size_t block, size_t step) const;
  uint32_t Level(size_t step) const;
  uint64_t ResultBytes(size_t block) const;

  std::shared_ptr<const DispatchPlan> plan_;
  Options options_;
  std::vector<uint32_t> counts_;  // nodes of a channel at each step
  std::vector<vulkan::TransferBuffer> buffers_;
};

}  // namespace normserve
