// Exact float32 arithmetic that every shader shares: a Pair is the unevaluated sum hi + lo.
//
// Sources: Knuth, TAOCP 4.2.2 (two_sum); Dekker 1971 (fast_two_sum, two_product); Ogita, Rump and Oishi 2005 (sums and
// products with a second word). Exact as long as nothing overflows or becomes subnormal. Where a sum or product is
// infinite or NaN, what rounding "lost" is NaN; sums and products of pairs drop it, so that infinities pass through.

const uint kLevels = 32u;

// Weights of a merge at one level, by counts of values.
struct LevelWeights {
  float ragged_share;   // ragged right node: right / (left + right)
  float ragged_factor;  // ragged right node: left * right / (left + right)
  float full_factor;    // full right node: the same, 8 * 2^level; its share is 1/2
  float unused;
};

struct Pair {
  float hi;
  float lo;
};

// `lost` where `leading` is finite, else 0. By bits, so that nothing hangs on what a driver assumes of NaN.
float if_finite(float leading, float lost) {
  return mix(lost, 0.0, (floatBitsToUint(leading) & 0x7f800000u) == 0x7f800000u);
}
vec4 if_finite(vec4 leading, vec4 lost) {
  return mix(lost, vec4(0.0), equal(floatBitsToUint(leading) & 0x7f800000u, uvec4(0x7f800000u)));
}

// The upper half of a float32's digits, toward zero: the rest is exact, and nothing overflows.
float upper_half(float a) { return uintBitsToFloat(floatBitsToUint(a) & 0xfffff000u); }
vec4 upper_half(vec4 a) { return uintBitsToFloat(floatBitsToUint(a) & 0xfffff000u); }

// a + b as a rounded sum and what rounding lost.
Pair two_sum(float a, float b) {
  precise float sum = a + b;
  precise float b_part = sum - a;
  precise float a_part = sum - b_part;
  precise float lost = (a - a_part) + (b - b_part);
  return Pair(sum, lost);
}

// The same where |a| >= |b| or a is 0.
Pair fast_two_sum(float a, float b) {
  precise float sum = a + b;
  precise float lost = b - (sum - a);
  return Pair(sum, lost);
}

// a * b as a rounded product and what rounding lost.
Pair two_product(float a, float b) {
  precise float product = a * b;
  precise float a_hi = upper_half(a), b_hi = upper_half(b);
  precise float a_lo = a - a_hi, b_lo = b - b_hi;
  precise float lost = (((a_hi * b_hi - product) + a_hi * b_lo) + a_lo * b_hi) + a_lo * b_lo;
  return Pair(product, lost);
}

// hi + lo, which is small beside hi, as a pair.
Pair to_pair(float hi, float lo) {
  Pair pair = fast_two_sum(hi, lo);
  bool finite = (floatBitsToUint(hi) & 0x7f800000u) != 0x7f800000u;
  return Pair(mix(hi, pair.hi, finite), mix(0.0, pair.lo, finite));
}

Pair add_pairs(Pair a, Pair b) {
  Pair sum = two_sum(a.hi, b.hi);
  precise float lo = (a.lo + b.lo) + sum.lo;
  return to_pair(sum.hi, lo);
}

Pair multiply_pairs(Pair a, Pair b) {
  Pair product = two_product(a.hi, b.hi);
  precise float lo = product.lo + (a.hi * b.lo + a.lo * b.hi);
  return to_pair(product.hi, lo);
}
