#include "kernels/element_type.h"

#include <bit>

namespace normserve {
namespace {

constexpr uint32_t kFloatInfinity = 0x7f800000u;
constexpr uint32_t kHalfInfinity = 0x7c00u;
constexpr uint32_t kHalfQuietNan = 0x7e00u;
constexpr uint32_t kQuietBit16 = 0x0040u;

float FloatFromHalf(uint32_t bits) {
  const uint32_t sign = (bits & 0x8000u) << 16;
  const uint32_t magnitude = bits & 0x7fffu;
  if (magnitude >= kHalfInfinity) return std::bit_cast<float>(sign | kFloatInfinity | (magnitude & 0x3ffu) << 13);
  if (magnitude >= 0x0400u) return std::bit_cast<float>(sign | ((magnitude << 13) + (112u << 23)));
  // Subnormal: 2^-14 * (1 + m/2^10) - 2^-14, exact.
  const float value = std::bit_cast<float>((113u << 23) | magnitude << 13) - 0x1p-14f;
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(value));
}

uint32_t HalfFromFloat(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = bits >> 16 & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > kFloatInfinity) return sign | kHalfQuietNan;
  if (magnitude >= 0x477ff000u) return sign | kHalfInfinity;       // 65520, halfway to 2^16, and more
  if (magnitude < 113u << 23) {                                    // below 2^-14: a multiple of 2^-24
    const float rounded = std::bit_cast<float>(magnitude) + 0.5f;  // whose last place is 2^-24
    return sign | (std::bit_cast<uint32_t>(rounded) - 0x3f000000u);
  }
  return sign | ((magnitude - (112u << 23) + 0xfffu + (magnitude >> 13 & 1u)) >> 13);
}

}  // namespace

float FloatFromBits(ElementType type, uint16_t bits) {
  if (type == ElementType::kBFloat16) return std::bit_cast<float>(uint32_t{bits} << 16);
  return FloatFromHalf(bits);
}

uint16_t BitsFromFloat(ElementType type, float value) {
  if (type == ElementType::kFloat16) return static_cast<uint16_t>(HalfFromFloat(value));
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > kFloatInfinity) return static_cast<uint16_t>(bits >> 16 | kQuietBit16);
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

}  // namespace normserve
