// Tensors as callers hold them: float32, dense, row-major.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace normserve::client {

// Where the channels are.
enum class Layout {
  kChannelsFirst,  // [N, C, *]
  kChannelsLast,   // [N, *, C]
};

// A tensor that somebody else owns. Both spans must stay valid and unchanged during the call they are given to; the
// library keeps no reference afterwards. The server checks that the product of `shape` is `values.size()`.
struct TensorView {
  absl::Span<const int64_t> shape;  // [N, C, *], or [N, *, C] with kChannelsLast
  absl::Span<const float> values;   // row-major
  Layout layout = Layout::kChannelsFirst;
};

// A tensor that owns its values.
struct Tensor {
  std::vector<int64_t> shape;  // [N, C, *], or [N, *, C] with kChannelsLast
  std::vector<float> values;   // row-major, as many as the product of shape
  Layout layout = Layout::kChannelsFirst;

  operator TensorView() const { return {shape, values, layout}; }
};

}  // namespace normserve::client
