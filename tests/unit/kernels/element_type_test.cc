// 16-bit conversions, all patterns of them, against arithmetic in double.
#include "kernels/element_type.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>

namespace normserve {
namespace {

struct Format {
  ElementType type;
  int fraction_bits, smallest_exponent, largest_exponent;  // of normal numbers
};
constexpr Format kFormats[] = {{ElementType::kFloat16, 10, -14, 15}, {ElementType::kBFloat16, 7, -126, 127}};

// By the definition of the format.
double Decode(const Format& format, uint32_t bits) {
  const double sign = (bits & 0x8000u) != 0 ? -1 : 1;
  const int exponent = static_cast<int>(bits & 0x7fffu) >> format.fraction_bits;
  const double fraction = static_cast<double>(bits & ((1u << format.fraction_bits) - 1)) / (1 << format.fraction_bits);
  if (exponent == (0x7fff >> format.fraction_bits)) return fraction == 0 ? sign * INFINITY : NAN;
  if (exponent == 0) return sign * std::ldexp(fraction, format.smallest_exponent);
  return sign * std::ldexp(1 + fraction, exponent - 1 + format.smallest_exponent);
}

TEST(ElementTypeTest, EveryPatternIsItsValueAndComesBack) {
  for (const Format& format : kFormats) {
    for (uint32_t bits = 0; bits < 0x10000u; ++bits) {
      const double expected = Decode(format, bits);
      const float value = FloatFromBits(format.type, static_cast<uint16_t>(bits));
      if (std::isnan(expected)) {
        EXPECT_TRUE(std::isnan(value)) << bits;
        EXPECT_TRUE(std::isnan(FloatFromBits(format.type, BitsFromFloat(format.type, value)))) << bits;
        continue;
      }
      ASSERT_EQ(value, expected) << bits;
      ASSERT_EQ(std::signbit(value), (bits & 0x8000u) != 0);
      ASSERT_EQ(BitsFromFloat(format.type, value), bits);
    }
  }
}

// The midpoint between neighbours goes to the even one, and what lies beside it to the nearer.
TEST(ElementTypeTest, EveryMidpointGoesToTheEvenNeighbour) {
  for (const Format& format : kFormats) {
    const auto infinity = static_cast<uint32_t>(0x7fff >> format.fraction_bits) << format.fraction_bits;
    for (uint32_t low = 0; low < infinity; ++low) {
      const double next = low + 1 == infinity ? std::ldexp(1, format.largest_exponent + 1) : Decode(format, low + 1);
      const auto middle = static_cast<float>((Decode(format, low) + next) / 2);
      const uint32_t even = low % 2 == 0 ? low : low + 1;
      ASSERT_EQ(BitsFromFloat(format.type, middle), even) << low;
      ASSERT_EQ(BitsFromFloat(format.type, -middle), even | 0x8000u) << low;
      ASSERT_EQ(BitsFromFloat(format.type, std::nextafter(middle, 0.0f)), low) << low;
      ASSERT_EQ(BitsFromFloat(format.type, std::nextafter(middle, INFINITY)), low + 1) << low;
    }
    EXPECT_EQ(BitsFromFloat(format.type, std::numeric_limits<float>::max()), infinity);
    EXPECT_EQ(BitsFromFloat(format.type, -INFINITY), infinity | 0x8000u);
  }
}

}  // namespace
}  // namespace normserve
