#include "kernels/forward_recording.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/kept_tensor.h"
#include "kernels/vulkan/recorder.h"

namespace normserve {
namespace {

using vulkan::TransferBuffer;

constexpr uint64_t kNodeFloats = 4;
constexpr uint64_t kParameterFloats = 4;
// With a batch's own statistics epsilon is added to the variance in float32. Above this their sum could be infinite,
// and the output is the bias either way.
constexpr double kMaxEpsilon = 0x1p126;

}  // namespace

ForwardRecording::ForwardRecording(const ForwardJob& job, std::shared_ptr<const DispatchPlan> plan)
    : shape_(job.input.shape),
      type_(job.input.type),
      plan_(std::move(plan)),
      from_batch_(job.given == nullptr),
      need_moments_(from_batch_ || job.want_moments),
      keep_input_(job.keep_input),
      epsilon_(static_cast<float>(std::min(job.epsilon, kMaxEpsilon))) {}

absl::StatusOr<std::unique_ptr<ForwardRecording>> ForwardRecording::Create(const ForwardJob& job,
                                                                           std::shared_ptr<const DispatchPlan> plan,
                                                                           const JobResources& resources) {
  std::unique_ptr<ForwardRecording> made(new ForwardRecording(job, std::move(plan)));
  if (absl::Status status = made->AcquireBuffers(resources.pool); !status.ok()) return status;
  made->input_->Fill(job.input);
  for (size_t b = 0; b < made->parameters_.size(); ++b) {
    made->FillParameters(job, made->plan_->blocks[b], ChannelParameters(made->parameters_[b]));
  }
  if (absl::Status status = made->Record(resources); !status.ok()) return status;
  return made;
}

absl::Status ForwardRecording::AcquireBuffers(vulkan::BufferPool& pool) {
  using Direction = TransferBuffer::Direction;
  auto input =
      TensorBuffers::Acquire(shape_, type_, plan_, pool, keep_input_ ? Direction::kToDevice : Direction::kBoth);
  if (!input.ok()) return input.status();
  input_ = *std::move(input);
  if (keep_input_) {
    auto output = TensorBuffers::Acquire(shape_, type_, plan_, pool, Direction::kFromDevice);
    if (!output.ok()) return output.status();
    output_ = *std::move(output);
  }
  auto parameters = AcquireParameters(*plan_, kParameterFloats, pool);
  if (!parameters.ok()) return parameters.status();
  parameters_ = *std::move(parameters);
  if (!need_moments_) return absl::OkStatus();
  auto nodes =
      ChannelNodes::Acquire(plan_, {.node_bytes = kNodeFloats * sizeof(float), .user_merges = from_batch_}, pool);
  if (!nodes.ok()) return nodes.status();
  nodes_ = *std::move(nodes);
  return absl::OkStatus();
}

void ForwardRecording::FillParameters(const ForwardJob& job, const PlanBlock& block, float* to) const {
  for (int64_t i = block.channel_begin; i < block.channel_begin + block.channel_count; ++i, to += kParameterFloats) {
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

absl::Status ForwardRecording::Record(const JobResources& resources) {
  auto recorder = vulkan::CommandRecorder::Begin(resources.device, resources.commands);
  if (!recorder.ok()) return recorder.status();
  if (absl::Status status = input_->RecordUpload(*recorder); !status.ok()) return status;
  for (const TransferBuffer& parameters : parameters_) {
    if (absl::Status status = parameters.RecordUpload(*recorder); !status.ok()) return status;
  }
  if (input_->staged()) recorder->Barrier();
  if (need_moments_) {
    if (absl::Status status = RecordMoments(resources.pipelines, *recorder); !status.ok()) return status;
  }
  if (absl::Status status = RecordNormalise(resources.pipelines, *recorder); !status.ok()) return status;
  if (input_->staged()) {
    recorder->Barrier();
    (output_ ? *output_ : *input_).RecordDownload(*recorder);
    if (nodes_) nodes_->RecordDownload(*recorder);
  }
  auto recording = std::move(*recorder).Finish();
  if (!recording.ok()) return recording.status();
  commands_.push_back(*std::move(recording));
  return absl::OkStatus();
}

absl::Status ForwardRecording::RecordMoments(Pipelines& pipelines, vulkan::CommandRecorder& recorder) const {
  const MergeTree& tree = plan_->tree;
  const auto pipeline = pipelines.moments(*plan_, type_);
  if (!pipeline.ok()) return pipeline.status();
  const auto merge = pipelines.merge();
  if (!merge.ok()) return merge.status();
  for (size_t b = 0; b < plan_->blocks.size(); ++b) {
    const PlanBlock& block = plan_->blocks[b];
    for (size_t w = 0; w < block.windows.size(); ++w) {
      const PlanWindow& window = block.windows[w];
      const MomentsPush push = {
          .channels = static_cast<uint32_t>(block.channel_count),
          .spatial = SpatialOf(shape_, *plan_, window),
          .chunks = tree.chunks,
          .full_chunks = tree.full_chunks,
          .ragged_values = tree.ragged_values,
          .ragged_share = tree.ragged_values > 0 ? 1.0f / static_cast<float>(tree.ragged_values) : 0.0f,
          .window_tile = window.tile_begin,
          .tiles = plan_->tiles,
          .lane_level = plan_->lane_level,
          .columns_level = plan_->columns_level};
      recorder.Dispatch(
          **pipeline, {WholeBuffer(input_->window(b, w)), WholeBuffer(parameters_[b]), WholeBuffer(nodes_->buffer(b))},
          PushBytes(push), TileGrid(*plan_, block, window));
    }
  }
  recorder.Barrier();
  nodes_->RecordMerges(**merge, parameters_, recorder);
  return absl::OkStatus();
}

absl::Status ForwardRecording::RecordNormalise(Pipelines& pipelines, vulkan::CommandRecorder& recorder) const {
  const auto pipeline = pipelines.normalise(*plan_, type_, from_batch_);
  if (!pipeline.ok()) return pipeline.status();
  const TensorBuffers& output = output_ ? *output_ : *input_;
  for (size_t b = 0; b < plan_->blocks.size(); ++b) {
    const PlanBlock& block = plan_->blocks[b];
    for (size_t w = 0; w < block.windows.size(); ++w) {
      const PlanWindow& window = block.windows[w];
      NormalisePush push = {.slice = SliceOf(shape_, *plan_, block, window)};
      if (from_batch_) {
        push.chunks = plan_->tree.chunks;
        push.full_chunks = plan_->tree.full_chunks;
        push.first_in = nodes_->first_in(b);
        push.count_in = nodes_->count_in();
        push.first_out = nodes_->first_result(b);
        push.level = nodes_->level_in();
        push.count_share = static_cast<float>(1.0 / static_cast<double>(shape_.ValuesPerChannel()));
        push.epsilon = epsilon_;
      }
      // A shader that does not merge reads no nodes; the binding still wants a buffer.
      const TransferBuffer& nodes = from_batch_ ? nodes_->buffer(b) : parameters_[b];
      recorder.Dispatch(**pipeline,
                        {WholeBuffer(input_->window(b, w)), WholeBuffer(output.window(b, w)),
                         WholeBuffer(parameters_[b]), WholeBuffer(nodes)},
                        PushBytes(push), SliceGrid(*plan_, block, window));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Moments> ForwardRecording::ReadMoments() const {
  Moments moments{.count = shape_.ValuesPerChannel()};
  moments.mean.reserve(static_cast<size_t>(shape_.num_features));
  moments.m2.reserve(static_cast<size_t>(shape_.num_features));
  for (size_t b = 0; b < plan_->blocks.size(); ++b) {
    const auto results = nodes_->Results(b);
    if (!results.ok()) return results.status();
    const float* node = *results;
    for (int64_t c = 0; c < plan_->blocks[b].channel_count; ++c, node += kNodeFloats) {
      moments.mean.push_back(static_cast<double>(node[0]) + static_cast<double>(node[1]));
      moments.m2.push_back(node[2]);
    }
  }
  return moments;
}

absl::StatusOr<ForwardResult> ForwardRecording::TakeResult() {
  ForwardResult result;
  if (need_moments_) {
    auto moments = ReadMoments();
    if (!moments.ok()) return moments.status();
    result.moments = *std::move(moments);
  }
  auto output = (output_ ? *output_ : *input_).TakeOutput();
  if (!output.ok()) return output.status();
  result.output = *std::move(output);
  if (!keep_input_) return result;
  input_->DropHostSide();
  result.kept_input = std::make_shared<KeptTensor>(shape_, type_, *std::move(input_));
  return result;
}

}  // namespace normserve
