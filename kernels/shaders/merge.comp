// merge: joins up to one workgroup's number of neighbouring nodes of a channel into one, for channels of more tiles
// than one workgroup of `normalise` can take, and where no `normalise` needs the moments.
//
// Grid: x = node to make, y = channel of this block.
//
//   0  parameters  LevelWeights of each level, then what normalise reads
//   1  nodes       from node first_in on [C, count_in] of (hi, lo, M2, 0), nodes of `level`; out, from node first_out
//                  on [C, ceil(count_in / workgroup size)]
#version 460
#extension GL_GOOGLE_include_directive : require
#include "moments_tree.glsl"

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

#include "workgroup_tree.glsl"

void main() {
  uint lane = gl_LocalInvocationID.x;
  uint channel = gl_WorkGroupID.y;
  uint first = gl_WorkGroupID.x * kWorkgroup;
  Node node = Node(0.0, 0.0, 0.0);
  if (first + lane < count_in) {
    vec4 packed = nodes[first_in + channel * count_in + first + lane];
    node = Node(packed.x, packed.y, packed.z);
  }
  node = workgroup_tree(node, first, level, chunks, full_chunks);
  if (lane == 0u) {
    uint out_index = first_out + channel * gl_NumWorkGroups.x + gl_WorkGroupID.x;
    nodes[out_index] = vec4(node.hi, node.lo, node.m2, 0.0);
  }
}
