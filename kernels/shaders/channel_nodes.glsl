// How a shader that uses a channel's result merges the nodes that are left of it. Included after Node, kAccess and the
// push constants `count_in` and `level`; load_node(channel, index) is declared there.
//
// Not kColumns: at most a workgroup's number of nodes, one an invocation. kColumns: each invocation has a channel of its
// own and merges its few nodes (at most 2^kMaxSerialLevel) one after the other, as a binary counter carries.

const uint kMaxSerialLevel = 4u;

Node load_node(uint channel, uint index);

#include "workgroup_tree.glsl"

Node serial_tree(uint channel) {
  Node waiting[kMaxSerialLevel + 1u];
  for (uint i = 0u; i < count_in; ++i) {
    Node node = load_node(channel, i);
    uint up = 0u;
    for (; ((i >> up) & 1u) != 0u; ++up) node = merge_nodes(waiting[up], node, i >> up, level + up);
    waiting[up] = node;
  }
  // What still waits joins from the right; a node with nothing to its right stands for its parents too.
  Node node = kEmptyNode;
  bool any = false;
  for (uint up = 0u; up <= kMaxSerialLevel; ++up) {
    if (((count_in >> up) & 1u) != 0u) {
      Node left = waiting[up];
      node = any ? merge_nodes(left, node, (count_in - 1u) >> up, level + up) : left;
      any = true;
    }
  }
  return node;
}

// The node of the whole channel. Called by all invocations of a workgroup or, with kColumns, by any.
Node channel_node(uint channel) {
  if (kAccess == kColumns) return serial_tree(channel);
  uint lane = gl_LocalInvocationID.x;
  Node node = kEmptyNode;
  if (lane < count_in) node = load_node(channel, lane);
  return workgroup_tree(node, 0u, level);
}
