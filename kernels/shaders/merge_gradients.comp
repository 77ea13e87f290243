// merge_gradients: as merge, for the nodes of gradient_sums.
//
// Grid: x = node to make, y = channel of this block.
//
//   0  parameters  LevelWeights of each level, then what other shaders read
//   1  nodes       from node first_in on [C, count_in], nodes of `level`; out, from node first_out on
//                  [C, ceil(count_in / workgroup size)]; a node is two vec4, as in gradient_sums
#version 460
#extension GL_GOOGLE_include_directive : require
#include "pair.glsl"

layout(local_size_x_id = 0) in;

layout(std430, binding = 0) readonly buffer Parameters { LevelWeights level_weights[kLevels]; };
layout(std430, binding = 1) buffer Nodes { vec4 nodes[]; };

layout(push_constant) uniform Push {
  uint chunks;       // of a channel, the ragged one included
  uint full_chunks;  // of a channel
  uint first_in;
  uint count_in;
  uint first_out;
  uint level;        // of the nodes in
};

#include "gradient_node.glsl"
#include "workgroup_tree.glsl"

void main() {
  uint lane = gl_LocalInvocationID.x;
  uint channel = gl_WorkGroupID.y;
  uint first = gl_WorkGroupID.x * kWorkgroup;
  Node node = kEmptyNode;
  if (first + lane < count_in) {
    uint at = 2u * (first_in + channel * count_in + first + lane);
    node = unpack_node(nodes[at], nodes[at + 1u]);
  }
  node = workgroup_tree(node, first, level);
  if (lane == 0u) {
    uint at = 2u * (first_out + channel * gl_NumWorkGroups.x + gl_WorkGroupID.x);
    nodes[at] = first_half(node);
    nodes[at + 1u] = second_half(node);
  }
}
