// Exact float32 arithmetic that every shader shares: a Pair is the unevaluated sum hi + lo.
//
// Sources: Knuth, TAOCP 4.2.2 (two_sum); Dekker 1971 (fast_two_sum, two_product); Ogita, Rump and Oishi 2005 (sums and
// products with a second word). Exact as long as nothing overflows or becomes subnormal.

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
  precise float a_big = 4097.0 * a, b_big = 4097.0 * b;
  precise float a_hi = a_big - (a_big - a), b_hi = b_big - (b_big - b);
  precise float a_lo = a - a_hi, b_lo = b - b_hi;
  precise float lost = (((a_hi * b_hi - product) + a_hi * b_lo) + a_lo * b_hi) + a_lo * b_lo;
  return Pair(product, lost);
}

Pair add_pairs(Pair a, Pair b) {
  Pair sum = two_sum(a.hi, b.hi);
  precise float lo = (a.lo + b.lo) + sum.lo;
  return fast_two_sum(sum.hi, lo);
}

Pair multiply_pairs(Pair a, Pair b) {
  Pair product = two_product(a.hi, b.hi);
  precise float lo = product.lo + (a.hi * b.lo + a.lo * b.hi);
  return fast_two_sum(product.hi, lo);
}
