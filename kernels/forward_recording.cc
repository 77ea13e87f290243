#include "kernels/forward_recording.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "kernels/check.h"
#include "kernels/tensor_segments.h"
#include "kernels/vulkan/recorder.h"

namespace normserve {
namespace {

using vulkan::TransferBuffer;

constexpr uint64_t kNodeBytes = 4 * sizeof(float);
constexpr uint64_t kLevelTableBytes = kTreeLevels * sizeof(MergeTree::LevelWeights);
// With a batch's own statistics epsilon is added to the variance in float32. Above this their sum could be infinite,
// and the output is the bias either way.
constexpr double kMaxEpsilon = 0x1p126;
// A shader may read a run of values up to the end of its last chunk.
constexpr uint64_t kPaddingBytes = kChunkValues * sizeof(float);
// An output in pieces smaller than this, on average, is joined: handing out slivers costs more than copying them.
constexpr size_t kSmallestPieceBytes = 16 * 1024;

uint64_t Padded(uint64_t bytes) { return (bytes + kPaddingBytes - 1) / kPaddingBytes * kPaddingBytes; }

template <typename Push>
absl::Span<const std::byte> Bytes(const Push& push) {
  return {reinterpret_cast<const std::byte*>(&push), sizeof(Push)};
}

}  // namespace

ForwardRecording::ForwardRecording(const ForwardJob& job, DispatchPlan plan)
    : shape_(job.input.shape),
      plan_(std::move(plan)),
      from_batch_(job.given == nullptr),
      need_moments_(from_batch_ || job.want_moments),
      epsilon_(static_cast<float>(std::min(job.epsilon, kMaxEpsilon))),
      step_counts_(plan_.MergeSteps(/*to_one=*/!from_batch_)) {}

absl::StatusOr<std::unique_ptr<ForwardRecording>> ForwardRecording::Create(const ForwardJob& job, DispatchPlan plan,
                                                                           const ForwardPipelines& pipelines,
                                                                           vulkan::Device& device,
                                                                           vulkan::BufferPool& pool,
                                                                           vulkan::CommandPool& commands) {
  std::unique_ptr<ForwardRecording> made(new ForwardRecording(job, std::move(plan)));
  if (absl::Status status = made->AcquireBuffers(pool); !status.ok()) return status;
  made->FillBuffers(job);
  if (absl::Status status = made->Record(pipelines, device, commands); !status.ok()) return status;
  return made;
}

uint32_t ForwardRecording::FirstNode(const PlanBlock& block, size_t step) const {
  uint64_t first = 0;
  for (size_t i = 0; i < step; ++i) first += step_counts_[i];
  return static_cast<uint32_t>(first * static_cast<uint64_t>(block.channel_count));
}

uint32_t ForwardRecording::Spatial(const PlanWindow& window) const {
  return static_cast<uint32_t>(plan_.one_run ? window.value_count : shape_.spatial_size);
}

absl::Status ForwardRecording::AcquireBuffers(vulkan::BufferPool& pool) {
  absl::Status status;
  auto acquire = [&](std::vector<TransferBuffer>& to, uint64_t size_bytes, TransferBuffer::Direction direction) {
    if (!status.ok()) return;
    auto buffer = TransferBuffer::Create(pool, size_bytes, direction);
    status = buffer.status();
    if (buffer.ok()) to.push_back(*std::move(buffer));
  };
  for (const PlanBlock& block : plan_.blocks) {
    Block& buffers = blocks_.emplace_back();
    const auto channels = static_cast<uint64_t>(block.channel_count);
    for (const PlanWindow& window : block.windows) {
      acquire(buffers.windows, Padded(channels * static_cast<uint64_t>(window.value_count) * sizeof(float)),
              TransferBuffer::Direction::kBoth);
    }
    acquire(buffers.parameters, kLevelTableBytes + channels * kNodeBytes, TransferBuffer::Direction::kToDevice);
    if (need_moments_) {
      acquire(buffers.nodes, (FirstNode(block, MomentsStep()) + channels) * kNodeBytes,
              TransferBuffer::Direction::kFromDevice);
    }
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

void ForwardRecording::FillBuffers(const ForwardJob& job) {
  WindowBytes inputs;
  for (size_t b = 0; b < blocks_.size(); ++b) {
    std::vector<std::byte*>& windows = inputs.emplace_back();
    for (const TransferBuffer& window : blocks_[b].windows) windows.push_back(window.host_input());
    FillParameters(job, plan_.blocks[b], reinterpret_cast<float*>(blocks_[b].parameters[0].host_input()));
  }
  Scatter(job.input, plan_, inputs);
}

void ForwardRecording::FillParameters(const ForwardJob& job, const PlanBlock& block, float* to) const {
  std::memcpy(to, plan_.tree.weights.data(), kLevelTableBytes);
  to += kLevelTableBytes / sizeof(float);
  for (int64_t i = block.channel_begin; i < block.channel_begin + block.channel_count; ++i, to += 4) {
    const auto c = static_cast<size_t>(i);
    const float weight = job.parameters->weight[c], bias = job.parameters->bias[c];
    if (from_batch_) {
      to[0] = weight, to[1] = bias, to[2] = 0, to[3] = 0;
    } else {
      const double mean = job.given->mean[c];
      const auto hi = static_cast<float>(mean);
      to[0] = hi;
      to[1] = std::isfinite(hi) ? static_cast<float>(mean - hi) : 0.0f;
      to[2] = static_cast<float>(weight / std::sqrt(job.given->variance[c] + job.epsilon));
      to[3] = bias;
    }
  }
}

absl::Status ForwardRecording::Record(const ForwardPipelines& pipelines, vulkan::Device& device,
                                      vulkan::CommandPool& commands) {
  auto recorder = vulkan::CommandRecorder::Begin(device, commands);
  if (!recorder.ok()) return recorder.status();
  const bool staged = blocks_.front().windows.front().staged();
  if (absl::Status status = RecordUploads(*recorder); !status.ok()) return status;
  if (staged) recorder->Barrier();
  if (need_moments_) {
    RecordMoments(pipelines, *recorder);
    recorder->Barrier();
    RecordMerges(pipelines, *recorder);
  }
  RecordNormalise(pipelines, *recorder);
  if (staged) {
    recorder->Barrier();
    RecordDownloads(*recorder);
  }
  auto recording = std::move(*recorder).Finish();
  if (!recording.ok()) return recording.status();
  commands_.push_back(*std::move(recording));
  return absl::OkStatus();
}

absl::Status ForwardRecording::RecordUploads(vulkan::CommandRecorder& recorder) const {
  for (const Block& block : blocks_) {
    for (const TransferBuffer& window : block.windows) {
      if (absl::Status status = window.RecordUpload(recorder); !status.ok()) return status;
    }
    if (absl::Status status = block.parameters[0].RecordUpload(recorder); !status.ok()) return status;
  }
  return absl::OkStatus();
}

void ForwardRecording::RecordMoments(const ForwardPipelines& pipelines, vulkan::CommandRecorder& recorder) const {
  const MergeTree& tree = plan_.tree;
  const auto& pipeline = pipelines.moments(plan_.moments_access, plan_.lane_level);
  for (size_t b = 0; b < blocks_.size(); ++b) {
    const PlanBlock& block = plan_.blocks[b];
    const auto channels = static_cast<uint32_t>(block.channel_count);
    for (size_t w = 0; w < block.windows.size(); ++w) {
      const PlanWindow& window = block.windows[w];
      const MomentsPush push = {
          .channels = channels,
          .spatial = Spatial(window),
          .chunks = tree.chunks,
          .full_chunks = tree.full_chunks,
          .ragged_values = tree.ragged_values,
          .ragged_share = tree.ragged_values > 0 ? 1.0f / static_cast<float>(tree.ragged_values) : 0.0f,
          .window_tile = window.tile_begin,
          .tiles = plan_.tiles,
          .lane_level = plan_.lane_level};
      recorder.Dispatch(pipeline, {All(blocks_[b].windows[w]), All(blocks_[b].parameters[0]), All(blocks_[b].nodes[0])},
                        Bytes(push), {window.tile_count, channels, 1});
    }
  }
}

void ForwardRecording::RecordMerges(const ForwardPipelines& pipelines, vulkan::CommandRecorder& recorder) const {
  const auto workgroup_level = plan_.tile_level - plan_.lane_level;
  for (size_t step = 1; step < step_counts_.size(); ++step) {
    for (size_t b = 0; b < blocks_.size(); ++b) {
      const PlanBlock& block = plan_.blocks[b];
      const MergePush push = {.chunks = plan_.tree.chunks,
                              .full_chunks = plan_.tree.full_chunks,
                              .first_in = FirstNode(block, step - 1),
                              .count_in = step_counts_[step - 1],
                              .first_out = FirstNode(block, step),
                              .level = plan_.tile_level + static_cast<uint32_t>(step - 1) * workgroup_level};
      recorder.Dispatch(pipelines.merge(), {All(blocks_[b].parameters[0]), All(blocks_[b].nodes[0])}, Bytes(push),
                        {step_counts_[step], static_cast<uint32_t>(block.channel_count), 1});
    }
    recorder.Barrier();
  }
}

void ForwardRecording::RecordNormalise(const ForwardPipelines& pipelines, vulkan::CommandRecorder& recorder) const {
  const uint32_t unit = plan_.normalise_access == Access::kQuads ? 4 : 1;
  const auto& pipeline = pipelines.normalise(from_batch_, plan_.normalise_access);
  const size_t last_step = step_counts_.size() - 1;
  const auto workgroup_level = plan_.tile_level - plan_.lane_level;
  for (size_t b = 0; b < blocks_.size(); ++b) {
    const PlanBlock& block = plan_.blocks[b];
    const auto channels = static_cast<uint32_t>(block.channel_count);
    const TransferBuffer& parameters = blocks_[b].parameters[0];
    for (size_t w = 0; w < block.windows.size(); ++w) {
      const PlanWindow& window = block.windows[w];
      const uint32_t spatial = (Spatial(window) + unit - 1) / unit;
      const NormalisePush push = {
          .channels = channels,
          .spatial = spatial,
          .window_length = static_cast<uint32_t>((window.value_count + unit - 1) / unit),
          .slice_length = window.slice_values / unit,
          .step_address = plan_.workgroup_size / spatial * channels * spatial + plan_.workgroup_size % spatial,
          .step_spatial = plan_.workgroup_size % spatial,
          .chunks = plan_.tree.chunks,
          .full_chunks = plan_.tree.full_chunks,
          .first_in = FirstNode(block, last_step),
          .count_in = step_counts_[last_step],
          .first_out = FirstNode(block, MomentsStep()),
          .level = plan_.tile_level + static_cast<uint32_t>(last_step) * workgroup_level,
          .count_share = static_cast<float>(1.0 / static_cast<double>(shape_.ValuesPerChannel())),
          .epsilon = epsilon_};
      // A shader that does not merge reads no nodes; the binding still wants a buffer.
      const TransferBuffer& nodes = from_batch_ ? blocks_[b].nodes[0] : parameters;
      recorder.Dispatch(pipeline, {All(blocks_[b].windows[w]), All(blocks_[b].windows[w]), All(parameters), All(nodes)},
                        Bytes(push), {window.slice_count, channels, 1});
    }
  }
}

void ForwardRecording::RecordDownloads(vulkan::CommandRecorder& recorder) const {
  for (size_t b = 0; b < blocks_.size(); ++b) {
    for (const TransferBuffer& window : blocks_[b].windows) {
      window.RecordDownload(recorder, 0, window.device()->size_bytes());
    }
    if (need_moments_) {
      const PlanBlock& block = plan_.blocks[b];
      blocks_[b].nodes[0].RecordDownload(recorder, FirstNode(block, MomentsStep()) * kNodeBytes,
                                         static_cast<uint64_t>(block.channel_count) * kNodeBytes);
    }
  }
}

absl::StatusOr<Moments> ForwardRecording::ReadMoments() const {
  Moments moments{.count = shape_.ValuesPerChannel()};
  moments.mean.reserve(static_cast<size_t>(shape_.num_features));
  moments.m2.reserve(static_cast<size_t>(shape_.num_features));
  for (size_t b = 0; b < blocks_.size(); ++b) {
    const PlanBlock& block = plan_.blocks[b];
    const uint64_t first = FirstNode(block, MomentsStep()) * kNodeBytes;
    const TransferBuffer& nodes = blocks_[b].nodes[0];
    const uint64_t size = static_cast<uint64_t>(block.channel_count) * kNodeBytes;
    if (absl::Status status = nodes.FinishDownload(first, size); !status.ok()) return status;
    const auto* node = reinterpret_cast<const float*>(nodes.host_output() + first);
    for (int64_t c = 0; c < block.channel_count; ++c, node += 4) {
      moments.mean.push_back(static_cast<double>(node[0]) + static_cast<double>(node[1]));
      moments.m2.push_back(node[2]);
    }
  }
  return moments;
}

absl::StatusOr<OutputTensor> ForwardRecording::TakeOutput() {
  auto buffers = std::make_shared<std::vector<TransferBuffer>>();
  WindowBytes outputs;
  for (Block& block : blocks_) {
    std::vector<std::byte*>& windows = outputs.emplace_back();
    for (TransferBuffer& window : block.windows) {
      if (absl::Status status = window.FinishDownload(0, window.device()->size_bytes()); !status.ok()) return status;
      windows.push_back(window.host_output());
      buffers->push_back(std::move(window));
    }
  }
  OutputTensor output{.pieces = GatherPieces(shape_, plan_, outputs), .owner = buffers};
  const auto size_bytes = static_cast<size_t>(shape_.SizeBytes(ElementType::kFloat32));
  if (output.pieces.size() == 1 || size_bytes / output.pieces.size() >= kSmallestPieceBytes) return output;

  auto joined = std::make_shared<std::vector<std::byte>>();
  joined->reserve(size_bytes);
  for (absl::Span<const std::byte> piece : output.pieces) joined->insert(joined->end(), piece.begin(), piece.end());
  return OutputTensor{.pieces = {absl::MakeConstSpan(*joined)}, .owner = joined};
}

absl::StatusOr<ForwardResult> ForwardRecording::TakeResult() {
  ForwardResult result;
  if (need_moments_) {
    auto moments = ReadMoments();
    if (!moments.ok()) return moments.status();
    result.moments = *std::move(moments);
  }
  auto output = TakeOutput();
  if (!output.ok()) return output.status();
  result.output = *std::move(output);
  return result;
}

}  // namespace normserve
