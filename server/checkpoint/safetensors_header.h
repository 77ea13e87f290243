// The header of a safetensors file: which tensors it has, and where.
//
// The format (huggingface.co/docs/safetensors): 8 bytes, the header's length, little-endian; the header, a JSON object
// {"name": {"dtype": "F32", "shape": [64], "data_offsets": [begin, end]}, ..., "__metadata__": {"key": "text"}}, which
// spaces may follow; then the tensors' bytes, little-endian and row-major, one after the other without a gap.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace normserve {

// Longest header that the format allows.
constexpr uint64_t kMaxHeaderBytes = 100'000'000;

struct TensorEntry {
  std::string name;
  std::string dtype;            // such as "F32"
  std::vector<uint64_t> shape;  // [] is a scalar
  uint64_t begin = 0;           // of its bytes, from the end of the header
  uint64_t end = 0;

  uint64_t size_bytes() const { return end - begin; }
};

struct SafetensorsHeader {
  std::vector<TensorEntry> tensors;  // by name
  uint64_t data_bytes = 0;           // of all tensors

  // Null if there is none of this name.
  const TensorEntry* Find(absl::string_view name) const;
};

// Bytes of one value; 0: a type that is not known here, of which only the range is checked.
uint64_t DtypeSizeBytes(absl::string_view dtype);

// "F32 [64, 3]".
std::string TypeText(const TensorEntry& tensor);

// INVALID_ARGUMENT, naming the tensor, unless `json` is such an object, with every key once, every tensor as long as
// its type and shape say, and the tensors one after the other from 0 on without overlap or gap.
absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(absl::string_view json);

}  // namespace normserve
