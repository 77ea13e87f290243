#include "server/checkpoint/checkpoint_writer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/error_reason.h"
#include "server/checkpoint/tensor_values.h"

namespace normserve {
namespace {

std::string TensorName(const std::string& path, const char* leaf) {
  return path.empty() ? leaf : absl::StrCat(path, ".", leaf);
}

// A member of something shared, kept alive with all of it.
template <typename Owner, typename Member>
std::shared_ptr<const Member> MemberOf(const std::shared_ptr<const Owner>& owner, const Member& member) {
  return std::shared_ptr<const Member>(owner, &member);
}

absl::StatusOr<double> LargestRounding(const std::string& session, const char* what,
                                       const std::vector<double>& values) {
  double largest = 0;
  for (size_t c = 0; c < values.size(); ++c) {
    if (!std::isfinite(static_cast<float>(values[c]))) {
      return MakeError(absl::StatusCode::kFailedPrecondition, ErrorReason::kNonFinite,
                       absl::StrCat("session \"", session, "\" has ", what, " ", values[c], " at channel ", c,
                                    ", which the file's float32 does not hold"),
                       {{"session", session}});
    }
    largest = std::max(largest, RoundingError(values[c]));
  }
  return largest;
}

template <typename T>
void AppendRaw(std::string& to, T value) {
  char bytes[sizeof(value)];
  std::memcpy(bytes, &value, sizeof(value));
  to.append(bytes, sizeof(bytes));
}

}  // namespace

absl::StatusOr<CheckpointWriter> CheckpointWriter::ForLayers(const std::vector<OutgoingLayer>& layers) {
  CheckpointWriter writer;
  for (const OutgoingLayer& layer : layers) {
    double largest = 0;
    if (const auto& statistics = layer.statistics; statistics != nullptr) {
      const auto mean = LargestRounding(layer.session, "running_mean", statistics->mean);
      if (!mean.ok()) return mean.status();
      const auto variance = LargestRounding(layer.session, "running_var", statistics->variance);
      if (!variance.ok()) return variance.status();
      largest = std::max(*mean, *variance);
      writer.tensors_.push_back({TensorName(layer.path, "num_batches_tracked"), layer.num_batches_tracked});
      writer.tensors_.push_back({TensorName(layer.path, "running_mean"), MemberOf(statistics, statistics->mean)});
      writer.tensors_.push_back({TensorName(layer.path, "running_var"), MemberOf(statistics, statistics->variance)});
    }
    if (const auto& parameters = layer.parameters; parameters != nullptr) {
      writer.tensors_.push_back({TensorName(layer.path, "weight"), MemberOf(parameters, parameters->weight)});
      writer.tensors_.push_back({TensorName(layer.path, "bias"), MemberOf(parameters, parameters->bias)});
    }
    writer.rounding_.of_layers.push_back(largest);
    writer.rounding_.largest = std::max(writer.rounding_.largest, largest);
  }
  writer.Begin();
  return writer;
}

CheckpointWriter CheckpointWriter::ForFolded(const std::vector<ScaleAndShift>& layers) {
  CheckpointWriter writer;
  for (const ScaleAndShift& layer : layers) {
    writer.tensors_.push_back({TensorName(layer.path, "scale"), layer.scale});
    writer.tensors_.push_back({TensorName(layer.path, "shift"), layer.shift});
  }
  writer.Begin();
  return writer;
}

void CheckpointWriter::Begin() {
  std::sort(tensors_.begin(), tensors_.end(), [](const Tensor& a, const Tensor& b) {
    const bool a_is_float = a.values.index() != 0, b_is_float = b.values.index() != 0;
    return std::tie(a_is_float, a.name) < std::tie(b_is_float, b.name);
  });
  // Loaders ask the metadata which framework's names these are.
  std::string json = R"({"__metadata__":{"format":"pt"})";
  size_t position = 0;
  for (const Tensor& tensor : tensors_) {
    const bool is_counter = tensor.values.index() == 0;
    const size_t length = std::visit(
        [](const auto& values) {
          if constexpr (requires { values->size(); }) {
            return values->size();
          } else {
            return size_t{1};
          }
        },
        tensor.values);
    const size_t end = position + length * (is_counter ? sizeof(int64_t) : sizeof(float));
    absl::StrAppend(&json, ",", nlohmann::json(tensor.name).dump(), R"(:{"dtype":")", is_counter ? "I64" : "F32",
                    R"(","shape":[)", is_counter ? "" : absl::StrCat(length), R"(],"data_offsets":[)", position, ",",
                    end, "]}");
    position = end;
  }
  json += "}";
  json.append((8 - json.size() % 8) % 8, ' ');  // so that the tensors lie aligned
  AppendRaw(header_, static_cast<uint64_t>(json.size()));
  header_ += json;
  size_bytes_ = static_cast<int64_t>(header_.size() + position);
}

std::string CheckpointWriter::Next(size_t max_bytes) {
  std::string piece;
  if (!is_header_written_) {
    // A long header goes in several pieces, too.
    piece = header_.substr(next_value_, max_bytes);
    next_value_ += piece.size();
    if (next_value_ < header_.size()) return piece;
    is_header_written_ = true;
    next_value_ = 0;
    header_ = std::string();
  }
  const auto is_full = [&](size_t next) { return !piece.empty() && piece.size() + next > max_bytes; };
  while (next_tensor_ < tensors_.size()) {
    const auto& values = tensors_[next_tensor_].values;
    if (const auto* counter = std::get_if<int64_t>(&values)) {
      if (is_full(sizeof(*counter))) return piece;
      AppendRaw(piece, *counter);
    } else {
      const auto append = [&](const auto& vector) {
        while (next_value_ < vector.size() && !is_full(sizeof(float))) {
          AppendRaw(piece, static_cast<float>(vector[next_value_++]));
        }
        return next_value_ == vector.size();
      };
      const auto* floats = std::get_if<1>(&values);
      if (!(floats != nullptr ? append(**floats) : append(**std::get_if<2>(&values)))) return piece;
      next_value_ = 0;
    }
    ++next_tensor_;
  }
  return piece;
}

}  // namespace normserve
