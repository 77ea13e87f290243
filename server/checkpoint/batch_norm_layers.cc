#include "server/checkpoint/batch_norm_layers.h"

#include <algorithm>
#include <array>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "server/checkpoint/checkpoint_error.h"
#include "server/checkpoint/tensor_values.h"

namespace normserve {
namespace {

constexpr absl::string_view kMean = "running_mean";
constexpr absl::string_view kVariance = "running_var";

absl::Status CheckVectors(const LayerTensors& layer) {
  for (const TensorEntry* tensor : {layer.running_mean, layer.running_var, layer.weight, layer.bias}) {
    if (tensor == nullptr) continue;
    if (!IsFloatingDtype(tensor->dtype)) {
      return CheckpointError(absl::StrCat("tensor ", Quoted(tensor->name), " is ", TypeText(*tensor),
                                          ": F64, F32, F16 or BF16 can be read"));
    }
    if (tensor->shape.size() != 1 || tensor->shape[0] == 0) {
      return CheckpointError(absl::StrCat("tensor ", Quoted(tensor->name), " is ", TypeText(*tensor),
                                          ": a batch-norm layer has one value per channel, shape [C]"));
    }
    if (tensor->shape != layer.running_mean->shape) {
      return CheckpointError(absl::StrCat("tensor ", Quoted(tensor->name), " is ", TypeText(*tensor), " and ",
                                          Quoted(layer.running_mean->name), " is ", TypeText(*layer.running_mean),
                                          ": a layer has one number of channels"));
    }
  }
  return absl::OkStatus();
}

bool IsCounter(const TensorEntry& tensor) {
  return IsCounterDtype(tensor.dtype) && (tensor.shape.empty() || (tensor.shape.size() == 1 && tensor.shape[0] == 1));
}

}  // namespace

absl::StatusOr<FoundLayers> FindBatchNormLayers(const SafetensorsHeader& header, absl::string_view prefix) {
  const std::string start = prefix.empty() ? "" : absl::StrCat(absl::StripSuffix(prefix, "."), ".");
  FoundLayers found;
  for (const TensorEntry& tensor : header.tensors) {
    if (!absl::StartsWith(tensor.name, start)) continue;
    const absl::string_view below = absl::string_view(tensor.name).substr(start.size());
    const size_t dot = below.rfind('.');
    const absl::string_view leaf = dot == absl::string_view::npos ? below : below.substr(dot + 1);
    if (leaf != kMean && leaf != kVariance) continue;
    const std::string stem(absl::string_view(tensor.name).substr(0, tensor.name.size() - leaf.size()));
    const TensorEntry* const other = header.Find(absl::StrCat(stem, leaf == kMean ? kVariance : kMean));
    if (other == nullptr) {
      found.skipped.push_back(
          {tensor.name, absl::StrCat("there is no ", leaf == kMean ? kVariance : kMean, " beside it")});
      continue;
    }
    if (leaf != kMean) continue;  // its mean has made the layer
    LayerTensors layer{.path = std::string(dot == absl::string_view::npos ? "" : below.substr(0, dot)),
                       .running_mean = &tensor,
                       .running_var = other,
                       .weight = header.Find(absl::StrCat(stem, "weight")),
                       .bias = header.Find(absl::StrCat(stem, "bias")),
                       .num_batches_tracked = header.Find(absl::StrCat(stem, "num_batches_tracked"))};
    if (absl::Status status = CheckVectors(layer); !status.ok()) return status;
    if (layer.num_batches_tracked != nullptr && !IsCounter(*layer.num_batches_tracked)) {
      found.skipped.push_back(
          {layer.num_batches_tracked->name, absl::StrCat("it is ", TypeText(*layer.num_batches_tracked),
                                                         ", not one I64 or I32: the count is taken to be 0")});
      layer.num_batches_tracked = nullptr;
    }
    found.layers.push_back(std::move(layer));
  }
  std::sort(found.layers.begin(), found.layers.end(),
            [](const LayerTensors& a, const LayerTensors& b) { return a.path < b.path; });
  if (!found.layers.empty()) return found;
  return CheckpointError(absl::StrCat(
      "none of its ", header.tensors.size(), " tensors", start.empty() ? "" : absl::StrCat(" below ", Quoted(start)),
      " is a running_mean that has a running_var beside it: there is no batch-norm layer"));
}

}  // namespace normserve
