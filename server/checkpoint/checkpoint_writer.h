// Writes batch-norm layers as a safetensors file under PyTorch's names, piece by piece.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/batch_norm.h"

namespace normserve {

// A layer to be written. What it points to is shared, not copied, and lives as long as the writer.
struct OutgoingLayer {
  std::string session;  // for messages
  std::string path;     // that the tensors' names begin with; empty: they are the whole name
  std::shared_ptr<const AffineParameters> parameters;         // null: the file gets no weight and bias
  std::shared_ptr<const NormalizationStatistics> statistics;  // null: no statistics and no counter
  int64_t num_batches_tracked = 0;
};

// The layers of a file in the order of their paths. Every tensor is F32 but the counters, I64 of shape []; the tensors
// lie as PyTorch's own writer puts them: by type, the wider first, then by name. Not thread-safe.
class CheckpointWriter {
 public:
  // The largest |float32 - statistic| / |statistic| of one layer's running statistics, in the order of the layers.
  struct Rounding {
    std::vector<double> of_layers;
    double largest = 0;
  };

  // Batch-norm layers that PyTorch's load_state_dict takes, strict too: X.weight, X.bias, X.running_mean,
  // X.running_var, X.num_batches_tracked. FAILED_PRECONDITION (NON_FINITE), naming session and channel: a statistic is
  // beyond float32.
  static absl::StatusOr<CheckpointWriter> ForLayers(const std::vector<OutgoingLayer>& layers);

  // X.scale and X.shift of layers that were folded.
  struct ScaleAndShift {
    std::string path;
    std::shared_ptr<const std::vector<float>> scale, shift;  // [C] each
  };
  static CheckpointWriter ForFolded(const std::vector<ScaleAndShift>& layers);

  const Rounding& rounding() const { return rounding_; }

  // Of the whole file.
  int64_t size_bytes() const { return size_bytes_; }

  // The next at most `max_bytes` of the file, at least one value at a time; empty when it is whole.
  std::string Next(size_t max_bytes);

 private:
  struct Tensor {
    std::string name;
    std::variant<int64_t, std::shared_ptr<const std::vector<float>>, std::shared_ptr<const std::vector<double>>> values;
  };

  CheckpointWriter() = default;
  // The tensors are all there: puts them in order and makes the header.
  void Begin();

  Rounding rounding_;
  int64_t size_bytes_ = 0;
  std::string header_;  // with the length before it
  std::vector<Tensor> tensors_;
  bool is_header_written_ = false;
  size_t next_tensor_ = 0;
  size_t next_value_ = 0;
};

}  // namespace normserve
