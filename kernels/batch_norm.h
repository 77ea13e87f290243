// The vocabulary of batch norm: shapes, moments, per-channel vectors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/element_type.h"

namespace normserve {

// Where a tensor has its channels.
enum class Layout {
  kChannelsFirst,  // [N, C, *]
  kChannelsLast,   // [N, *, C]
};

// A batch [N, C, *], row-major: N samples, C channels, S values a sample and channel (the product of all dimensions
// after the second; 1 for [N, C]). A batch with the channels last, [N, *, C], is the [N*S, C, 1] of the same bytes: the
// same values in the same order.
//
// Invariant of a shape made by FromDimensions: N >= 0, C >= 1, S >= 1, and N*C*S*8 does not overflow int64_t.
struct BatchShape {
  int64_t batch_size = 0;
  int64_t num_features = 1;
  int64_t spatial_size = 1;

  // N*S, what a channel's moments are taken over.
  int64_t ValuesPerChannel() const { return batch_size * spatial_size; }
  int64_t NumValues() const { return batch_size * num_features * spatial_size; }
  int64_t SizeBytes(ElementType type) const { return NumValues() * ElementSizeBytes(type); }

  // Reads [N, C, *] or [N, *, C]. INVALID_ARGUMENT (SHAPE_MISMATCH): fewer than two dimensions or more than 64, N < 0,
  // another dimension < 1, or a product that overflows; the message calls them `field`.
  static absl::StatusOr<BatchShape> FromDimensions(absl::Span<const int64_t> dimensions,
                                                   Layout layout = Layout::kChannelsFirst,
                                                   absl::string_view field = "input.shape");

  friend bool operator==(const BatchShape&, const BatchShape&) = default;
};

// "[4, 3, 32, 32]", as it is written in messages.
std::string DimensionsText(absl::Span<const int64_t> dimensions);

// How many values there were and, per channel, where they lie and how far they spread: the one mergeable description
// of data. Empty vectors with count 0 mean no data.
struct Moments {
  int64_t count = 0;         // values per channel
  std::vector<double> mean;  // [C]
  std::vector<double> m2;    // [C], sum over the values of (value - mean)^2
  // N of [N, C, *], summed where data are merged; 0: not known. Says how far values may hang together, not which they
  // are: no part of what makes two moments equal.
  int64_t num_samples = 0;

  // The variance that normalises: m2 / count.
  double BiasedVariance(size_t channel) const { return m2[channel] / static_cast<double>(count); }
  // The variance that PyTorch folds into running_var: m2 / (count - 1). Needs count >= 2.
  double UnbiasedVariance(size_t channel) const { return m2[channel] / static_cast<double>(count - 1); }
};

// What follows the normalisation: y = normalised * weight + bias. Immutable once shared.
struct AffineParameters {
  std::vector<float> weight;  // [C], gamma
  std::vector<float> bias;    // [C], beta
};

// Mean and variance to normalise with in place of the batch's own. Immutable once shared.
struct NormalizationStatistics {
  std::vector<double> mean;      // [C]
  std::vector<double> variance;  // [C], >= 0; epsilon is added when it is used
};

// The values of a batch, in host memory that `owner` keeps alive and nobody writes. The pieces, joined, are the dense
// row-major tensor; a piece may begin and end anywhere, also inside a value.
struct InputTensor {
  BatchShape shape;
  ElementType type = ElementType::kFloat32;
  std::vector<absl::Span<const std::byte>> pieces;
  std::shared_ptr<const void> owner;
};

// The result, of the input's shape and type. The pieces, joined, are the dense row-major tensor. The memory belongs to
// the engine and goes back to it when the last copy of `owner` is dropped, which may happen on any thread.
struct OutputTensor {
  std::vector<absl::Span<const std::byte>> pieces;
  std::shared_ptr<const void> owner;
};

// Where a batch first leaves the finite numbers.
struct NonFiniteValue {
  int64_t index;  // position in the channel, n*S + s
  float value;
};

// The first NaN or infinity of `channel`, in the order of n*S + s; nothing if all its values are finite (its moments
// can still overflow float32). Reads the whole channel: for error messages.
std::optional<NonFiniteValue> FindNonFinite(const InputTensor& input, int64_t channel);

}  // namespace normserve
