// The merge tree that every shader shares. Included, never compiled alone.
//
// A channel's values, in the order n*S + s, are cut into chunks of 16. Node j of level l stands for the chunks
// [j*2^l, (j+1)*2^l), so the tree is a function of the number of values alone: workgroup size, lanes, tiles and
// windows only decide who computes which node. Nodes merge by Chan's formula; the weights of two full nodes are powers
// of two, and each level has at most one pair whose right node is ragged, with weights computed on the host.
//
// Only add, subtract and multiply, all `precise` (NoContraction), so that every device gives the same bits.

const uint kChunk = 16u;
const uint kLevels = 32u;

// Mean as hi + lo, and the sum of squared deviations. A node of no values is all zero.
struct Node {
  float hi;
  float lo;
  float m2;
};

// Weights of a merge at one level, by counts of values.
struct LevelWeights {
  float ragged_share;   // ragged right node: right / (left + right)
  float ragged_factor;  // ragged right node: left * right / (left + right)
  float full_factor;    // full right node: the same, 8 * 2^level; its share is 1/2
  float unused;
};

// a + b as a rounded sum and what rounding lost (Knuth).
Node two_sum(float a, float b) {
  precise float sum = a + b;
  precise float b_part = sum - a;
  precise float a_part = sum - b_part;
  precise float lost = (a - a_part) + (b - b_part);
  return Node(sum, lost, 0.0);
}

// Merges neighbours of one level; `right` is node `right_index` of it. An empty right node leaves `left` as it is.
Node merge(Node left, Node right, uint right_index, uint level, uint chunks, uint full_chunks, LevelWeights weights) {
  bool empty = (right_index << level) >= chunks;
  bool full = ((right_index + 1u) << level) <= full_chunks;
  float share = full ? 0.5 : weights.ragged_share;
  float factor = full ? weights.full_factor : weights.ragged_factor;
  precise float delta = (right.hi - left.hi) + (right.lo - left.lo);
  precise float step = delta * share;
  Node sum = two_sum(left.hi, step);
  precise float rest = left.lo + sum.lo;
  precise float hi = sum.hi + rest;
  precise float lo = rest - (hi - sum.hi);
  precise float m2 = (left.m2 + right.m2) + (delta * delta) * factor;
  if (empty) return left;
  return Node(hi, lo, m2);
}
