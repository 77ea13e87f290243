// Nodes of the merge tree for gradients: sums over a node's values, g being the gradient of the output and xc = x - mean
// times the channel's power of two (gradient_sums). Included after the push constant `chunks`.

struct Node {
  Pair g;        // sum of g
  Pair product;  // sum of g * xc
  Pair xc;       // sum of xc
  Pair square;   // sum of xc * xc
};

const Node kEmptyNode = Node(Pair(0.0, 0.0), Pair(0.0, 0.0), Pair(0.0, 0.0), Pair(0.0, 0.0));

Node unpack_node(vec4 first, vec4 second) {
  return Node(Pair(first.x, first.y), Pair(first.z, first.w), Pair(second.x, second.y), Pair(second.z, second.w));
}

vec4 first_half(Node node) { return vec4(node.g.hi, node.g.lo, node.product.hi, node.product.lo); }
vec4 second_half(Node node) { return vec4(node.xc.hi, node.xc.lo, node.square.hi, node.square.lo); }

// Merges neighbours of one level; `right` is node `right_index` of it. An empty right node leaves `left` as it is.
Node merge_nodes(Node left, Node right, uint right_index, uint level) {
  if ((right_index << level) >= chunks) return left;
  return Node(add_pairs(left.g, right.g), add_pairs(left.product, right.product), add_pairs(left.xc, right.xc),
              add_pairs(left.square, right.square));
}
