// Merges one node of each invocation of a workgroup. Included after Node and merge_nodes (channel_tree.glsl says what
// they are).

const uint kWorkgroup = gl_WorkGroupSize.x;

shared Node lane_nodes[kWorkgroup];

// `node` is node first_index + lane of `level`; returns their common ancestor to every invocation.
// first_index is a multiple of the workgroup size. Called by all invocations or by none.
Node workgroup_tree(Node node, uint first_index, uint level) {
  uint lane = gl_LocalInvocationID.x;
  lane_nodes[lane] = node;
  barrier();
  for (uint step = 1u; step < kWorkgroup; step <<= 1) {
    if ((lane & (2u * step - 1u)) == 0u) {
      lane_nodes[lane] = merge_nodes(lane_nodes[lane], lane_nodes[lane + step], (first_index + lane) / step + 1u, level);
    }
    ++level;
    barrier();
  }
  return lane_nodes[0];
}
