#include "kernels/backward_recording.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/kept_tensor.h"
#include "kernels/vulkan/recorder.h"

namespace normserve {
namespace {

using vulkan::TransferBuffer;

constexpr uint64_t kNodeFloats = 8;
constexpr uint64_t kParameterFloats = 8;
// As good as infinite beside a variance near 1.
constexpr double kLargestEpsilon = 0x1p100;

// A double as the sum of two float32; what does not fit is infinite or NaN in hi alone.
void WritePair(double value, float* to) {
  to[0] = static_cast<float>(value);
  to[1] = std::isfinite(to[0]) ? static_cast<float>(value - to[0]) : 0.0f;
}

// The power of two that brings values of this variance near 1.
float PowerOf(double variance) {
  if (!(variance > 0) || !std::isfinite(variance)) return 1;
  int exponent;
  std::frexp(variance, &exponent);
  return std::ldexp(1.0f, std::clamp(-(exponent >> 1), -126, 126));
}

// The sums of squares that come with the job, or those of the variance it was normalised with.
std::vector<double> SquaresOf(const BackwardJob& job) {
  if (!job.sums) return {};
  if (!job.sums->centred_input_squared.empty()) return job.sums->centred_input_squared;
  std::vector<double> squares;
  const auto count = static_cast<double>(job.sums->count);
  for (size_t c = 0; c < job.sums->centred_input.size(); ++c) {
    const double rest = job.sums->centred_input[c];
    squares.push_back(job.normalization->variance[c] * count + rest / count * rest);
  }
  return squares;
}

double ReadPair(const float* pair) { return static_cast<double>(pair[0]) + static_cast<double>(pair[1]); }

}  // namespace

BackwardRecording::BackwardRecording(const BackwardJob& job, std::shared_ptr<const DispatchPlan> plan)
    : shape_(job.grad_output.shape),
      type_(job.grad_output.type),
      plan_(std::move(plan)),
      from_batch_(job.from_batch),
      want_grad_input_(job.want_grad_input),
      given_sums_(job.sums),
      given_squares_(SquaresOf(job)) {
  for (double variance : job.normalization->variance) {
    powers_.push_back(PowerOf(variance > 0 ? variance : job.epsilon));
  }
}

absl::StatusOr<std::unique_ptr<BackwardRecording>> BackwardRecording::Create(const BackwardJob& job,
                                                                             std::shared_ptr<const DispatchPlan> plan,
                                                                             const JobResources& resources) {
  std::unique_ptr<BackwardRecording> made(new BackwardRecording(job, std::move(plan)));
  if (absl::Status status = made->AcquireBuffers(job, resources.pool); !status.ok()) return status;
  made->gradient_->Fill(job.grad_output);
  if (made->input_) made->input_->Fill(job.input);
  for (size_t b = 0; b < made->parameters_.size(); ++b) {
    made->FillParameters(job, made->plan_->blocks[b], ChannelParameters(made->parameters_[b]));
    if (made->nodes_ && made->given_sums_) made->FillSums(made->plan_->blocks[b], made->nodes_->host_nodes(b));
  }
  if (absl::Status status = made->Record(resources); !status.ok()) return status;
  return made;
}

absl::Status BackwardRecording::AcquireBuffers(const BackwardJob& job, vulkan::BufferPool& pool) {
  using Direction = TransferBuffer::Direction;
  const bool sums = !given_sums_, through_batch = from_batch_ && want_grad_input_;
  auto gradient = TensorBuffers::Acquire(shape_, type_, plan_, pool, Direction::kBoth);
  if (!gradient.ok()) return gradient.status();
  gradient_ = *std::move(gradient);
  if (sums || through_batch) {
    if (job.kept_input != nullptr) {
      kept_ = std::static_pointer_cast<const KeptTensor>(job.kept_input);
    } else {
      auto input = TensorBuffers::Acquire(shape_, type_, plan_, pool, Direction::kToDevice);
      if (!input.ok()) return input.status();
      input_ = *std::move(input);
    }
    auto nodes = ChannelNodes::Acquire(
        plan_,
        {.node_bytes = kNodeFloats * sizeof(float), .user_merges = through_batch, .from_host = given_sums_.has_value()},
        pool);
    if (!nodes.ok()) return nodes.status();
    nodes_ = *std::move(nodes);
  }
  auto parameters = AcquireParameters(*plan_, kParameterFloats, pool);
  if (!parameters.ok()) return parameters.status();
  parameters_ = *std::move(parameters);
  return absl::OkStatus();
}

void BackwardRecording::FillParameters(const BackwardJob& job, const PlanBlock& block, float* to) const {
  for (int64_t i = block.channel_begin; i < block.channel_begin + block.channel_count; ++i, to += kParameterFloats) {
    const auto c = static_cast<size_t>(i);
    double shifted = job.normalization->variance[c] + job.epsilon;
    // A constant channel without epsilon was divided by 1.
    if (from_batch_ && shifted == 0) shifted = 1;
    const double power = powers_[c];
    WritePair(job.normalization->mean[c], to);
    to[2] = static_cast<float>(job.parameters->weight[c] / std::sqrt(shifted));
    to[3] = powers_[c];
    WritePair(std::min(job.epsilon * power * power, kLargestEpsilon), to + 4);
    to[6] = 0, to[7] = 0;
  }
}

void BackwardRecording::FillSums(const PlanBlock& block, float* to) const {
  for (int64_t i = block.channel_begin; i < block.channel_begin + block.channel_count; ++i, to += kNodeFloats) {
    const auto c = static_cast<size_t>(i);
    const double power = powers_[c];
    WritePair(given_sums_->grad_output[c], to);
    WritePair(given_sums_->product[c] * power, to + 2);
    WritePair(given_sums_->centred_input[c] * power, to + 4);
    WritePair(given_squares_[c] * power * power, to + 6);
  }
}

absl::Status BackwardRecording::RecordUploads(vulkan::CommandRecorder& recorder) const {
  if (absl::Status status = gradient_->RecordUpload(recorder); !status.ok()) return status;
  if (input_) {
    if (absl::Status status = input_->RecordUpload(recorder); !status.ok()) return status;
  }
  for (size_t b = 0; b < parameters_.size(); ++b) {
    if (absl::Status status = parameters_[b].RecordUpload(recorder); !status.ok()) return status;
    if (!nodes_ || !given_sums_) continue;
    if (absl::Status status = nodes_->buffer(b).RecordUpload(recorder); !status.ok()) return status;
  }
  if (gradient_->staged()) recorder.Barrier();
  return absl::OkStatus();
}

absl::Status BackwardRecording::Record(const JobResources& resources) {
  auto recorder = vulkan::CommandRecorder::Begin(resources.device, resources.commands);
  if (!recorder.ok()) return recorder.status();
  if (absl::Status status = RecordUploads(*recorder); !status.ok()) return status;
  if (!given_sums_) {
    if (absl::Status status = RecordSums(resources.pipelines, *recorder); !status.ok()) return status;
  }
  if (want_grad_input_) {
    if (absl::Status status = RecordGradient(resources.pipelines, *recorder); !status.ok()) return status;
  }
  if (gradient_->staged()) {
    recorder->Barrier();
    if (want_grad_input_) gradient_->RecordDownload(*recorder);
    if (nodes_) nodes_->RecordDownload(*recorder);
  }
  auto recording = std::move(*recorder).Finish();
  if (!recording.ok()) return recording.status();
  commands_.push_back(*std::move(recording));
  return absl::OkStatus();
}

absl::Status BackwardRecording::RecordSums(Pipelines& pipelines, vulkan::CommandRecorder& recorder) const {
  const MergeTree& tree = plan_->tree;
  const auto pipeline = pipelines.gradient_sums(*plan_, type_, from_batch_);
  if (!pipeline.ok()) return pipeline.status();
  const auto merge = pipelines.merge_gradients();
  if (!merge.ok()) return merge.status();
  for (size_t b = 0; b < plan_->blocks.size(); ++b) {
    const PlanBlock& block = plan_->blocks[b];
    for (size_t w = 0; w < block.windows.size(); ++w) {
      const PlanWindow& window = block.windows[w];
      const GradientSumsPush push = {.channels = static_cast<uint32_t>(block.channel_count),
                                     .spatial = SpatialOf(shape_, *plan_, window),
                                     .chunks = tree.chunks,
                                     .full_chunks = tree.full_chunks,
                                     .ragged_values = tree.ragged_values,
                                     .window_tile = window.tile_begin,
                                     .tiles = plan_->tiles,
                                     .lane_level = plan_->lane_level,
                                     .columns_level = plan_->columns_level};
      recorder.Dispatch(**pipeline,
                        {WholeBuffer(input()->window(b, w)), WholeBuffer(gradient_->window(b, w)),
                         WholeBuffer(parameters_[b]), WholeBuffer(nodes_->buffer(b))},
                        PushBytes(push), TileGrid(*plan_, block, window));
    }
  }
  recorder.Barrier();
  nodes_->RecordMerges(**merge, parameters_, recorder);
  return absl::OkStatus();
}

absl::Status BackwardRecording::RecordGradient(Pipelines& pipelines, vulkan::CommandRecorder& recorder) const {
  const auto pipeline = pipelines.gradient_input(*plan_, type_, from_batch_);
  if (!pipeline.ok()) return pipeline.status();
  for (size_t b = 0; b < plan_->blocks.size(); ++b) {
    const PlanBlock& block = plan_->blocks[b];
    for (size_t w = 0; w < block.windows.size(); ++w) {
      const PlanWindow& window = block.windows[w];
      GradientInputPush push = {.slice = SliceOf(shape_, *plan_, block, window)};
      if (from_batch_) {
        float share[2];
        WritePair(1.0 / static_cast<double>(given_sums_ ? given_sums_->count : shape_.ValuesPerChannel()), share);
        push.chunks = plan_->tree.chunks;
        push.first_in = nodes_->first_in(b);
        push.count_in = nodes_->count_in();
        push.first_out = nodes_->first_result(b);
        push.level = nodes_->level_in();
        push.share_hi = share[0];
        push.share_lo = share[1];
      }
      // A shader that uses neither x nor nodes still wants buffers in their places.
      const TensorBuffers& x = from_batch_ ? *input() : *gradient_;
      const TransferBuffer& nodes = from_batch_ ? nodes_->buffer(b) : parameters_[b];
      recorder.Dispatch(**pipeline,
                        {WholeBuffer(x.window(b, w)), WholeBuffer(gradient_->window(b, w)), WholeBuffer(parameters_[b]),
                         WholeBuffer(nodes)},
                        PushBytes(push), SliceGrid(*plan_, block, window));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<GradientSums> BackwardRecording::ReadSums() const {
  if (given_sums_) return *given_sums_;
  GradientSums sums{.count = shape_.ValuesPerChannel()};
  for (size_t b = 0; b < plan_->blocks.size(); ++b) {
    const auto results = nodes_->Results(b);
    if (!results.ok()) return results.status();
    const float* node = *results;
    for (int64_t c = 0; c < plan_->blocks[b].channel_count; ++c, node += kNodeFloats) {
      sums.grad_output.push_back(ReadPair(node));
      const double power = powers_[static_cast<size_t>(plan_->blocks[b].channel_begin + c)];
      sums.product.push_back(ReadPair(node + 2) / power);
      sums.centred_input.push_back(ReadPair(node + 4) / power);
      if (from_batch_) sums.centred_input_squared.push_back(ReadPair(node + 6) / power / power);
    }
  }
  return sums;
}

absl::StatusOr<BackwardResult> BackwardRecording::TakeResult() {
  auto sums = ReadSums();
  if (!sums.ok()) return sums.status();
  BackwardResult result{.sums = *std::move(sums)};
  if (!want_grad_input_) return result;
  auto gradient = gradient_->TakeOutput();
  if (!gradient.ok()) return gradient.status();
  result.grad_input = *std::move(gradient);
  return result;
}

}  // namespace normserve
