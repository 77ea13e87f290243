#include "server/session/received_tensor.h"

#include "absl/strings/str_cat.h"
#include "kernels/error_reason.h"

namespace normserve {
namespace {

absl::Status ShapeMismatch(absl::string_view field, absl::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, ErrorReason::kShapeMismatch, message,
                   {{"field", std::string(field)}});
}

}  // namespace

const char* TypeName(ElementType type) {
  return type == ElementType::kFloat32 ? "FLOAT32" : type == ElementType::kFloat16 ? "FLOAT16" : "BFLOAT16";
}

absl::StatusOr<BatchShape> CheckTensor(absl::string_view field, const ReceivedTensor& tensor) {
  auto shape = BatchShape::FromDimensions(tensor.dimensions, tensor.layout, absl::StrCat(field, ".shape"));
  if (!shape.ok()) return shape.status();
  int64_t size_bytes = 0;
  for (const auto& piece : tensor.pieces) size_bytes += static_cast<int64_t>(piece.size());
  if (size_bytes != shape->SizeBytes(tensor.type)) {
    return ShapeMismatch(
        absl::StrCat(field, ".data"),
        absl::StrCat(field, ".data has ", size_bytes, " bytes, ", field, ".shape ", DimensionsText(tensor.dimensions),
                     " of ", TypeName(tensor.type), " takes ", shape->SizeBytes(tensor.type), ": send ",
                     ElementSizeBytes(tensor.type), " bytes for each value"));
  }
  return shape;
}

absl::Status CheckChannels(absl::string_view field, const ReceivedTensor& tensor, absl::string_view session,
                           const BatchShape& shape, int64_t num_features) {
  if (shape.num_features == num_features) return absl::OkStatus();
  const bool last = tensor.layout == Layout::kChannelsLast, plain = tensor.dimensions.size() == 2;
  // Perhaps the channels are where the other layout has them.
  const bool elsewhere = !plain && (last ? tensor.dimensions[1] : tensor.dimensions.back()) == num_features;
  return ShapeMismatch(
      absl::StrCat(field, ".shape"),
      absl::StrCat(field, " has ", shape.num_features, " channels, session \"", session, "\" has ", num_features,
                   ": send [N, ", last && !plain ? "..., " : "", num_features, last || plain ? "]" : ", ...]",
                   elsewhere ? absl::StrCat(" or set layout CHANNELS_", last ? "FIRST" : "LAST") : "", "; ", field,
                   ".shape is ", DimensionsText(tensor.dimensions)));
}

}  // namespace normserve
