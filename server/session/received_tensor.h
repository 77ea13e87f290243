// A tensor as it came: what it says of itself, and its bytes.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/batch_norm.h"

namespace normserve {

struct ReceivedTensor {
  ElementType type = ElementType::kFloat32;
  Layout layout = Layout::kChannelsFirst;
  std::vector<int64_t> dimensions;                  // [N, C, *] or [N, *, C]
  std::vector<absl::Span<const std::byte>> pieces;  // kept alive by `owner`
  std::shared_ptr<const void> owner;

  // As an engine takes it.
  InputTensor ToInput(const BatchShape& shape) const {
    return {.shape = shape, .type = type, .pieces = pieces, .owner = owner};
  }
};

// "FLOAT32".
const char* TypeName(ElementType type);

// The shape of a tensor whose dimensions and bytes agree; nothing is allocated. `field` names it in errors, "input".
// INVALID_ARGUMENT (SHAPE_MISMATCH).
absl::StatusOr<BatchShape> CheckTensor(absl::string_view field, const ReceivedTensor& tensor);

// INVALID_ARGUMENT (SHAPE_MISMATCH) unless it has `num_features` channels.
absl::Status CheckChannels(absl::string_view field, const ReceivedTensor& tensor, absl::string_view session,
                           const BatchShape& shape, int64_t num_features);

}  // namespace normserve
