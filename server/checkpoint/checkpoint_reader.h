// Reads the batch-norm layers out of a safetensors file while it arrives.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/batch_norm.h"
#include "server/checkpoint/batch_norm_layers.h"

namespace normserve {

struct CheckpointLayer {
  std::string path;                            // as LayerTensors has it
  AffineParameters parameters;                 // [C] each; empty where the file has none
  NormalizationStatistics statistics;          // [C] each, finite; the variance not negative
  std::optional<int64_t> num_batches_tracked;  // not negative; unset: the file has none
};

struct Checkpoint {
  std::vector<CheckpointLayer> layers;  // by path
  std::vector<SkippedTensor> skipped;   // at most kMaxSkippedListed of them
  int64_t num_skipped = 0;
  // The largest relative error of a weight or bias, which are float32: 0 unless the file has F64.
  double largest_parameter_rounding = 0;
};

constexpr size_t kMaxSkippedListed = 100;

// Keeps the header until it is whole, and of the rest the bytes of the layers' tensors alone. Not thread-safe.
class CheckpointReader {
 public:
  // `prefix` as FindBatchNormLayers takes it.
  explicit CheckpointReader(std::string prefix) : prefix_(std::move(prefix)) {}

  // The next bytes of the file, cut anywhere. INVALID_ARGUMENT: what came so far cannot be the beginning of a file with
  // such layers; then, and after Finish, nothing more may be called.
  absl::Status Feed(absl::string_view bytes);

  // After the last byte. INVALID_ARGUMENT, naming the tensor: the file ends early; a value is not finite or cannot be
  // kept; a variance or a counter is negative.
  absl::StatusOr<Checkpoint> Finish();

  // What this holds in memory, roughly: for those who have a budget.
  int64_t held_bytes() const { return held_bytes_; }

 private:
  // A tensor of a layer, and what has come of it.
  struct KeptTensor {
    TensorEntry entry;
    std::string bytes;
  };
  // Indices in kept_; -1: the file has none.
  struct LayerParts {
    std::string path;
    int running_mean = -1, running_var = -1, weight = -1, bias = -1, num_batches_tracked = -1;
  };

  absl::Status TakeHeader();
  void TakeData(absl::string_view bytes);
  absl::StatusOr<std::vector<double>> ValuesOf(int kept) const;
  absl::StatusOr<std::vector<float>> ParametersOf(int kept, Checkpoint& checkpoint) const;
  absl::StatusOr<CheckpointLayer> ReadLayer(const LayerParts& parts, Checkpoint& checkpoint) const;

  const std::string prefix_;
  std::string head_;           // the length and the header, until they are whole
  uint64_t header_bytes_ = 0;  // of the header alone; 0: not known yet
  bool has_header_ = false;
  uint64_t position_ = 0;    // in the data
  uint64_t data_bytes_ = 0;  // that there should be
  std::vector<KeptTensor> kept_;
  std::vector<size_t> in_order_;  // of kept_, as they lie in the file
  size_t next_ = 0;               // of in_order_, the first that is not whole
  std::vector<LayerParts> parts_;
  Checkpoint checkpoint_;  // what was skipped
  int64_t held_bytes_ = 0;
};

}  // namespace normserve
