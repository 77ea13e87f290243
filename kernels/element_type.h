// How one value of a tensor is stored. Arithmetic is float32 or wider whatever is chosen here.
#pragma once

#include <cstdint>

namespace normserve {

enum class ElementType : uint32_t {
  kFloat32 = 0,   // IEEE 754 binary32
  kFloat16 = 1,   // IEEE 754 binary16
  kBFloat16 = 2,  // the upper half of a binary32
};

// Bytes of one value: 4 or 2.
constexpr int64_t ElementSizeBytes(ElementType type) { return type == ElementType::kFloat32 ? 4 : 2; }

// The value of 16 bits stored as `type`, exactly. `type` is kFloat16 or kBFloat16.
float FloatFromBits(ElementType type, uint16_t bits);

// The nearest value of `type` (ties to even; beyond the largest: infinity; NaN: a quiet NaN of the same sign).
uint16_t BitsFromFloat(ElementType type, float value);

}  // namespace normserve
