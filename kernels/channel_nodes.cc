#include "kernels/channel_nodes.h"

#include <bit>
#include <utility>

#include "kernels/pipelines.h"
#include "kernels/tensor_buffers.h"

namespace normserve {

using vulkan::TransferBuffer;

ChannelNodes::ChannelNodes(std::shared_ptr<const DispatchPlan> plan, const Options& options)
    : plan_(std::move(plan)),
      options_(options),
      counts_(options.from_host ? std::vector<uint32_t>{1} : plan_->MergeSteps(/*to_one=*/!options.user_merges)) {}

absl::StatusOr<ChannelNodes> ChannelNodes::Acquire(std::shared_ptr<const DispatchPlan> plan, const Options& options,
                                                   vulkan::BufferPool& pool) {
  ChannelNodes nodes(std::move(plan), options);
  for (size_t b = 0; b < nodes.plan_->blocks.size(); ++b) {
    auto buffer = TransferBuffer::Create(
        pool, nodes.first_result(b) * options.node_bytes + nodes.ResultBytes(b),
        options.from_host ? TransferBuffer::Direction::kBoth : TransferBuffer::Direction::kFromDevice);
    if (!buffer.ok()) return buffer.status();
    nodes.buffers_.push_back(*std::move(buffer));
  }
  return nodes;
}

uint32_t ChannelNodes::FirstNode(size_t block, size_t step) const {
  uint64_t first = 0;
  for (size_t i = 0; i < step; ++i) first += counts_[i];
  return static_cast<uint32_t>(first * static_cast<uint64_t>(plan_->blocks[block].channel_count));
}

uint32_t ChannelNodes::Level(size_t step) const {
  return plan_->tile_level +
         static_cast<uint32_t>(step) * static_cast<uint32_t>(std::countr_zero(plan_->workgroup_size));
}

uint64_t ChannelNodes::ResultBytes(size_t block) const {
  return static_cast<uint64_t>(plan_->blocks[block].channel_count) * options_.node_bytes;
}

void ChannelNodes::RecordMerges(const vulkan::ComputePipeline& merge, const std::vector<TransferBuffer>& parameters,
                                vulkan::CommandRecorder& recorder) const {
  for (size_t step = 1; step < counts_.size(); ++step) {
    for (size_t b = 0; b < buffers_.size(); ++b) {
      const MergePush push = {.chunks = plan_->tree.chunks,
                              .full_chunks = plan_->tree.full_chunks,
                              .first_in = FirstNode(b, step - 1),
                              .count_in = counts_[step - 1],
                              .first_out = FirstNode(b, step),
                              .level = Level(step - 1)};
      recorder.Dispatch(merge, {WholeBuffer(parameters[b]), WholeBuffer(buffers_[b])}, PushBytes(push),
                        {counts_[step], static_cast<uint32_t>(plan_->blocks[b].channel_count), 1});
    }
    recorder.Barrier();
  }
}

void ChannelNodes::RecordDownload(vulkan::CommandRecorder& recorder) const {
  for (size_t b = 0; b < buffers_.size(); ++b) {
    buffers_[b].RecordDownload(recorder, first_result(b) * options_.node_bytes, ResultBytes(b));
  }
}

absl::StatusOr<const float*> ChannelNodes::Results(size_t block) const {
  const uint64_t first = first_result(block) * options_.node_bytes;
  if (absl::Status status = buffers_[block].FinishDownload(first, ResultBytes(block)); !status.ok()) return status;
  return reinterpret_cast<const float*>(buffers_[block].host_output() + first);
}

}  // namespace normserve
