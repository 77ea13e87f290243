// Which tensors of a file are batch-norm layers.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/checkpoint/safetensors_header.h"

namespace normserve {

// The tensors of one layer; null: the file has none.
struct LayerTensors {
  std::string path;  // without the prefix: "layer1.0.bn1"; empty: the layer that the prefix itself names
  const TensorEntry* running_mean = nullptr;         // never null; [C]
  const TensorEntry* running_var = nullptr;          // never null; [C]
  const TensorEntry* weight = nullptr;               // [C]
  const TensorEntry* bias = nullptr;                 // [C]
  const TensorEntry* num_batches_tracked = nullptr;  // [] or [1]
};

// A tensor that looks as if it belonged to a layer and is left out.
struct SkippedTensor {
  std::string name;
  std::string reason;
};

struct FoundLayers {
  std::vector<LayerTensors> layers;  // by path
  std::vector<SkippedTensor> skipped;
};

// The layers whose tensors' names begin with `prefix`, which is whole steps of a path ("backbone" and "backbone." are
// the same; empty: all of the file). A layer is what has a running_mean and a running_var, whatever it is called: batch
// norm of every dimension, and instance norm that tracks statistics, which a file does not tell from it. The tensors
// stay `header`'s.
//
// A running_mean without a running_var, or the other way round, and a counter that is not one integer, are skipped.
// INVALID_ARGUMENT, naming the tensor: there is no layer; a type that is no floating-point number, or a shape other
// than [C] with C >= 1 for all of a layer.
absl::StatusOr<FoundLayers> FindBatchNormLayers(const SafetensorsHeader& header, absl::string_view prefix);

}  // namespace normserve
