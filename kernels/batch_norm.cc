#include "kernels/batch_norm.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/error_reason.h"

namespace normserve {
namespace {

// More than any framework has.
constexpr size_t kMaxDimensions = 64;

absl::Status ShapeError(absl::string_view field, absl::Span<const int64_t> dimensions, absl::string_view expected) {
  return MakeError(absl::StatusCode::kInvalidArgument, ErrorReason::kShapeMismatch,
                   absl::StrCat(field, " is ", DimensionsText(dimensions), ": ", expected),
                   {{"field", std::string(field)}});
}

// Reads values out of pieces that may split a value.
class PieceReader {
 public:
  explicit PieceReader(const InputTensor& input) : pieces_(input.pieces), type_(input.type) {}

  // The value at `index`. Quickest when indices grow.
  float At(int64_t index) {
    const auto size_bytes = static_cast<size_t>(ElementSizeBytes(type_));
    const size_t offset = static_cast<size_t>(index) * size_bytes;
    if (offset < begin_) piece_ = 0, begin_ = 0;
    while (offset >= begin_ + pieces_[piece_].size()) begin_ += pieces_[piece_++].size();
    std::byte bytes[sizeof(float)];
    size_t piece = piece_, at = offset - begin_;
    for (std::byte& byte : absl::MakeSpan(bytes, size_bytes)) {
      while (at == pieces_[piece].size()) ++piece, at = 0;
      byte = pieces_[piece][at++];
    }
    if (type_ != ElementType::kFloat32) {
      uint16_t bits;
      std::memcpy(&bits, bytes, sizeof(bits));
      return FloatFromBits(type_, bits);
    }
    float value;
    std::memcpy(&value, bytes, sizeof(value));
    return value;
  }

 private:
  const std::vector<absl::Span<const std::byte>>& pieces_;
  const ElementType type_;
  size_t piece_ = 0;
  size_t begin_ = 0;  // offset of piece_ in the tensor
};

}  // namespace

absl::StatusOr<BatchShape> BatchShape::FromDimensions(absl::Span<const int64_t> dimensions, Layout layout,
                                                      absl::string_view field) {
  if (dimensions.size() > kMaxDimensions) {
    return ShapeError(field, dimensions.first(4),
                      absl::StrCat("and ", dimensions.size() - 4, " dimensions more, at most ", kMaxDimensions,
                                   " are allowed: send [N, C, *]"));
  }
  if (dimensions.size() < 2) return ShapeError(field, dimensions, "send [N, C] or [N, C, *]");
  if (dimensions[0] < 0) return ShapeError(field, dimensions, "N, the first dimension, must be 0 or more");
  constexpr int64_t kMaxValues = std::numeric_limits<int64_t>::max() / 8;
  int64_t others = 1;  // the product of all but N, so that N = 0 does not hide an overflow
  for (size_t i = 1; i < dimensions.size(); ++i) {
    if (dimensions[i] < 1) return ShapeError(field, dimensions, absl::StrCat("dimension ", i, " must be 1 or more"));
    if (dimensions[i] > kMaxValues / others) return ShapeError(field, dimensions, "the product overflows 2^60 values");
    others *= dimensions[i];
  }
  if (dimensions[0] > kMaxValues / others) return ShapeError(field, dimensions, "the product overflows 2^60 values");
  if (layout == Layout::kChannelsLast) {
    return BatchShape{.batch_size = dimensions[0] * (others / dimensions.back()), .num_features = dimensions.back()};
  }
  return BatchShape{.batch_size = dimensions[0], .num_features = dimensions[1], .spatial_size = others / dimensions[1]};
}

std::string DimensionsText(absl::Span<const int64_t> dimensions) {
  return absl::StrCat("[", absl::StrJoin(dimensions, ", "), "]");
}

std::optional<NonFiniteValue> FindNonFinite(const InputTensor& input, int64_t channel) {
  const BatchShape& shape = input.shape;
  PieceReader reader(input);
  for (int64_t n = 0; n < shape.batch_size; ++n) {
    for (int64_t s = 0; s < shape.spatial_size; ++s) {
      const float value = reader.At((n * shape.num_features + channel) * shape.spatial_size + s);
      if (!std::isfinite(value)) return NonFiniteValue{n * shape.spatial_size + s, value};
    }
  }
  return std::nullopt;
}

}  // namespace normserve
