// A number as the unevaluated sum of two doubles: about 106 bits, for sums whose order and rounding must not show.
#pragma once

#include <cmath>

namespace normserve {

// hi is the sum rounded to double, lo what that left over.
struct DoubleDouble {
  double hi = 0;
  double lo = 0;
};

// a + b exactly. Source: Knuth, The Art of Computer Programming 2, 4.2.2, theorem B (two_sum, after Moller).
inline DoubleDouble TwoSum(double a, double b) {
  const double sum = a + b;
  const double b_part = sum - a;
  return {sum, (a - (sum - b_part)) + (b - b_part)};
}

// a + b exactly if |a| >= |b|. Source: Dekker 1971.
inline DoubleDouble QuickTwoSum(double a, double b) {
  const double sum = a + b;
  return {sum, b - (sum - a)};
}

// a * b exactly, if nothing overflows or becomes subnormal. Source: Dekker 1971; by fma: Ogita, Rump, Oishi 2005.
inline DoubleDouble TwoProduct(double a, double b) {
  const double product = a * b;
  return {product, std::fma(a, b, -product)};
}

// Relative errors of at most 3 * 2^-106 (sum), 5 * 2^-106 (product) and 10 * 2^-106 (quotient). Source: Joldes, Muller,
// Popescu 2017, algorithms 6, 12 and 17.
inline DoubleDouble operator+(DoubleDouble x, DoubleDouble y) {
  DoubleDouble high = TwoSum(x.hi, y.hi);
  const DoubleDouble low = TwoSum(x.lo, y.lo);
  high = QuickTwoSum(high.hi, high.lo + low.hi);
  return QuickTwoSum(high.hi, high.lo + low.lo);
}

inline DoubleDouble operator-(DoubleDouble x, DoubleDouble y) { return x + DoubleDouble{-y.hi, -y.lo}; }

inline DoubleDouble operator*(DoubleDouble x, DoubleDouble y) {
  const DoubleDouble product = TwoProduct(x.hi, y.hi);
  const double low = std::fma(x.lo, y.hi, std::fma(x.hi, y.lo, x.lo * y.lo));
  return QuickTwoSum(product.hi, product.lo + low);
}

inline DoubleDouble operator/(DoubleDouble x, DoubleDouble y) {
  const double quotient = x.hi / y.hi;
  const DoubleDouble rest = x - y * DoubleDouble{quotient, 0};
  return QuickTwoSum(quotient, rest.hi / y.hi);
}

}  // namespace normserve
