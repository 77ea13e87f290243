// The merge tree, and its nodes for moments. Included after the push constants `chunks` and `full_chunks` and the
// buffer `level_weights`.
//
// A channel's values, in the order n*S + s, are cut into chunks of 16. Node j of level l stands for the chunks
// [j*2^l, (j+1)*2^l), so the tree is a function of the number of values alone: workgroup size, lanes, tiles, windows and
// layout only decide who computes which node. Nodes merge by Chan's formula; the weights of two full nodes are powers
// of two, and each level has at most one pair whose right node is ragged, with weights computed on the host.
//
// Only add, subtract and multiply, all `precise` (NoContraction), so that every device gives the same bits.

// Mean as hi + lo, and the sum of squared deviations. A node of no values is all zero.
struct Node {
  float hi;
  float lo;
  float m2;
};

const Node kEmptyNode = Node(0.0, 0.0, 0.0);

Node unpack_node(vec4 packed) { return Node(packed.x, packed.y, packed.z); }
vec4 pack_node(Node node) { return vec4(node.hi, node.lo, node.m2, 0.0); }

// Merges neighbours of one level; `right` is node `right_index` of it. An empty right node leaves `left` as it is.
Node merge_nodes(Node left, Node right, uint right_index, uint level) {
  LevelWeights weights = level_weights[level];
  bool empty = (right_index << level) >= chunks;
  bool full = ((right_index + 1u) << level) <= full_chunks;
  float share = full ? 0.5 : weights.ragged_share;
  float factor = full ? weights.full_factor : weights.ragged_factor;
  precise float delta = (right.hi - left.hi) + (right.lo - left.lo);
  precise float step = delta * share;
  Pair sum = two_sum(left.hi, step);
  precise float rest = left.lo + sum.lo;
  precise float hi = sum.hi + rest;
  precise float lo = rest - (hi - sum.hi);
  precise float m2 = (left.m2 + right.m2) + (delta * delta) * factor;
  if (empty) return left;
  return Node(hi, lo, m2);
}
