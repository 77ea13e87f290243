#include "server/checkpoint/checkpoint_reader.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/checkpoint/checkpoint_error.h"
#include "server/checkpoint/tensor_values.h"

namespace normserve {
namespace {

constexpr size_t kLengthBytes = sizeof(uint64_t);
// What a header takes with what is made of it: entries are a few times as long as their text.
constexpr int64_t kParsedFactor = 5;

absl::Status ValueError(const TensorEntry& tensor, size_t channel, double value, absl::string_view rule) {
  return CheckpointError(
      absl::StrCat("tensor ", Quoted(tensor.name), " has ", value, " at channel ", channel, ": ", rule));
}

}  // namespace

absl::Status CheckpointReader::Feed(absl::string_view bytes) {
  if (!has_header_) {
    // First the length alone, so that a header too long is never kept.
    while (!bytes.empty() && (header_bytes_ == 0 || head_.size() < kLengthBytes + header_bytes_)) {
      const size_t wanted =
          (header_bytes_ == 0 ? kLengthBytes : kLengthBytes + static_cast<size_t>(header_bytes_)) - head_.size();
      const absl::string_view part = bytes.substr(0, wanted);
      absl::StrAppend(&head_, part);
      bytes.remove_prefix(part.size());
      if (header_bytes_ > 0 || head_.size() < kLengthBytes) continue;
      std::memcpy(&header_bytes_, head_.data(), kLengthBytes);
      if (header_bytes_ < 2 || header_bytes_ > kMaxHeaderBytes) {
        return CheckpointError(absl::StrCat("its first 8 bytes say that the header has ", header_bytes_,
                                            " bytes: 2 up to ", kMaxHeaderBytes));
      }
    }
    held_bytes_ = kParsedFactor * static_cast<int64_t>(head_.size());
    if (header_bytes_ == 0 || head_.size() < kLengthBytes + header_bytes_) return absl::OkStatus();
    if (absl::Status status = TakeHeader(); !status.ok()) return status;
  }
  if (bytes.size() > data_bytes_ - position_) {
    return CheckpointError(
        absl::StrCat("it goes on after its last tensor, which ends ", data_bytes_, " bytes after the header"));
  }
  TakeData(bytes);
  return absl::OkStatus();
}

absl::Status CheckpointReader::TakeHeader() {
  const auto header = ParseSafetensorsHeader(absl::string_view(head_).substr(kLengthBytes));
  if (!header.ok()) return header.status();
  auto found = FindBatchNormLayers(*header, prefix_);
  if (!found.ok()) return found.status();
  const auto keep = [this](const TensorEntry* tensor) {
    if (tensor == nullptr) return -1;
    kept_.push_back({.entry = *tensor});
    return static_cast<int>(kept_.size()) - 1;
  };
  for (LayerTensors& layer : found->layers) {
    parts_.push_back({.path = std::move(layer.path),
                      .running_mean = keep(layer.running_mean),
                      .running_var = keep(layer.running_var),
                      .weight = keep(layer.weight),
                      .bias = keep(layer.bias),
                      .num_batches_tracked = keep(layer.num_batches_tracked)});
  }
  in_order_.resize(kept_.size());
  std::iota(in_order_.begin(), in_order_.end(), size_t{0});
  std::sort(in_order_.begin(), in_order_.end(), [this](size_t a, size_t b) {
    return std::pair(kept_[a].entry.begin, kept_[a].entry.end) < std::pair(kept_[b].entry.begin, kept_[b].entry.end);
  });
  checkpoint_.num_skipped = static_cast<int64_t>(found->skipped.size());
  if (found->skipped.size() > kMaxSkippedListed) found->skipped.resize(kMaxSkippedListed);
  checkpoint_.skipped = std::move(found->skipped);
  data_bytes_ = header->data_bytes;
  has_header_ = true;
  held_bytes_ = static_cast<int64_t>(kept_.size() * (sizeof(KeptTensor) + 100));
  head_ = std::string();
  return absl::OkStatus();
}

void CheckpointReader::TakeData(absl::string_view bytes) {
  while (next_ < in_order_.size()) {
    KeptTensor& tensor = kept_[in_order_[next_]];
    if (tensor.entry.begin + tensor.bytes.size() >= position_ + bytes.size()) break;  // it begins or goes on later
    const uint64_t from = std::max(tensor.entry.begin, position_);
    const uint64_t until = std::min(tensor.entry.end, position_ + bytes.size());
    if (until > from) {
      const absl::string_view part = bytes.substr(from - position_, until - from);
      absl::StrAppend(&tensor.bytes, part);
      held_bytes_ += static_cast<int64_t>(part.size());
    }
    if (tensor.bytes.size() < tensor.entry.size_bytes()) break;
    ++next_;
  }
  position_ += bytes.size();
}

absl::StatusOr<std::vector<double>> CheckpointReader::ValuesOf(int kept) const {
  const KeptTensor& tensor = kept_[static_cast<size_t>(kept)];
  std::vector<double> values = ReadValues(tensor.entry.dtype, tensor.bytes);
  for (size_t c = 0; c < values.size(); ++c) {
    if (std::abs(values[c]) <= std::numeric_limits<float>::max()) continue;
    return ValueError(tensor.entry, c, values[c],
                      "send finite values of float32, in which batches are normalised, 3.4e38 at most");
  }
  return values;
}

absl::StatusOr<std::vector<float>> CheckpointReader::ParametersOf(int kept, Checkpoint& checkpoint) const {
  if (kept < 0) return std::vector<float>();
  const auto values = ValuesOf(kept);
  if (!values.ok()) return values.status();
  std::vector<float> parameters(values->size());
  for (size_t c = 0; c < parameters.size(); ++c) {
    parameters[c] = static_cast<float>((*values)[c]);
    checkpoint.largest_parameter_rounding =
        std::max(checkpoint.largest_parameter_rounding, RoundingError((*values)[c]));
  }
  return parameters;
}

absl::StatusOr<CheckpointLayer> CheckpointReader::ReadLayer(const LayerParts& parts, Checkpoint& checkpoint) const {
  CheckpointLayer layer{.path = parts.path};
  auto mean = ValuesOf(parts.running_mean);
  if (!mean.ok()) return mean.status();
  auto variance = ValuesOf(parts.running_var);
  if (!variance.ok()) return variance.status();
  for (size_t c = 0; c < variance->size(); ++c) {
    if ((*variance)[c] < 0) {
      return ValueError(kept_[static_cast<size_t>(parts.running_var)].entry, c, (*variance)[c],
                        "a variance is 0 or more");
    }
  }
  layer.statistics = {.mean = *std::move(mean), .variance = *std::move(variance)};
  auto weight = ParametersOf(parts.weight, checkpoint);
  if (!weight.ok()) return weight.status();
  auto bias = ParametersOf(parts.bias, checkpoint);
  if (!bias.ok()) return bias.status();
  layer.parameters = {.weight = *std::move(weight), .bias = *std::move(bias)};
  if (parts.num_batches_tracked < 0) return layer;
  const KeptTensor& counter = kept_[static_cast<size_t>(parts.num_batches_tracked)];
  layer.num_batches_tracked = ReadInteger(counter.entry.dtype, counter.bytes);
  if (*layer.num_batches_tracked < 0) {
    return CheckpointError(absl::StrCat("tensor ", Quoted(counter.entry.name), " is ", *layer.num_batches_tracked,
                                        ": a count is 0 or more"));
  }
  return layer;
}

absl::StatusOr<Checkpoint> CheckpointReader::Finish() {
  if (!has_header_) {
    return CheckpointError(absl::StrCat("it ends after ", head_.size(), " bytes, inside ",
                                        header_bytes_ == 0 ? std::string("the 8 bytes that say how long its header is")
                                                           : absl::StrCat("its header of ", header_bytes_, " bytes")));
  }
  if (position_ < data_bytes_) {
    return CheckpointError(absl::StrCat("it ends early: ", position_, " of the ", data_bytes_,
                                        " bytes that its header says the tensors have"));
  }
  Checkpoint checkpoint = std::move(checkpoint_);
  for (const LayerParts& parts : parts_) {
    auto layer = ReadLayer(parts, checkpoint);
    if (!layer.ok()) return layer.status();
    checkpoint.layers.push_back(*std::move(layer));
  }
  return checkpoint;
}

}  // namespace normserve
