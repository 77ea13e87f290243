// normalise: y = ((x - hi) - lo) * scale + bias, per channel.
//
// Grid: x = slice of the channel's values in this window, y = channel of this block. With kFromNodes the workgroup
// first merges its channel's nodes (at most one an invocation) into the batch's mean and M2 and derives scale from
// them; the first slice also writes them out. Else the host has put hi, lo, scale and bias into `constants`.
//
// The mean is subtracted as hi, then lo: a single float32 mean would limit y where |mean| >> std. No invocation reads
// a value that another writes, so x and y may be the same memory.
//
//   0  x            block of the batch, [N, C, S] float32, dense
//   1  y            out, the same shape
//   2  parameters  LevelWeights of each level, then `constants`: [C] of (hi, lo, scale, bias), or of (weight, bias, 0, 0)
//                  with kFromNodes
//   3  nodes       only with kFromNodes: from node first_in on [C, count_in] of (hi, lo, M2, 0); out, from node
//                  first_out on [C], the same of the whole channel
//
// kAccess: 0 value by value; 1 in runs of four (S % 4 == 0, or the window is one run), all lengths then in quads.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "moments_tree.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const bool kFromNodes = false;
layout(constant_id = 2) const uint kAccess = 0;

layout(std430, binding = 0) readonly buffer ValuesIn { float values_in[]; };
layout(std430, binding = 0) readonly buffer QuadsIn { vec4 quads_in[]; };
layout(std430, binding = 1) writeonly buffer ValuesOut { float values_out[]; };
layout(std430, binding = 1) writeonly buffer QuadsOut { vec4 quads_out[]; };
layout(std430, binding = 2) readonly buffer Parameters {
  LevelWeights level_weights[kLevels];
  vec4 constants[];
};
layout(std430, binding = 3) buffer Nodes { vec4 nodes[]; };

layout(push_constant) uniform Push {
  uint channels;       // C of the block
  uint spatial;        // S
  uint window_length;  // N*S of this window
  uint slice_length;   // a workgroup's share of window_length
  uint step_address;   // how far one step of all invocations moves the address, before wrapping
  uint step_spatial;   // and the position in the plane; less than `spatial`
  uint chunks;         // of a channel, as in moments
  uint full_chunks;
  uint first_in;
  uint count_in;       // nodes of a channel; at most the workgroup size
  uint first_out;
  uint level;          // of the nodes in
  float count_share;   // 1 / values per channel
  float epsilon;
};

#include "workgroup_tree.glsl"

// 1 / sqrt(v) for v >= 0 by Newton's steps from an integer seed, exactly rounded operations only. Zero gives a large
// finite value, so that a constant channel becomes `bias` even without epsilon.
float inverse_root(float v) {
  precise float half_v = 0.5 * v;
  precise float r = uintBitsToFloat(0x5f375a86u - (floatBitsToUint(v) >> 1));
  for (int i = 0; i < 4; ++i) {
    precise float t = half_v * r;
    precise float u = 0.5 - t * r;
    r = r + r * u;
  }
  return r;
}

void main() {
  uint lane = gl_LocalInvocationID.x;
  uint channel = gl_WorkGroupID.y;
  vec4 channel_constants = constants[channel];
  if (kFromNodes) {
    Node node = Node(0.0, 0.0, 0.0);
    if (lane < count_in) {
      vec4 packed = nodes[first_in + channel * count_in + lane];
      node = Node(packed.x, packed.y, packed.z);
    }
    node = workgroup_tree(node, 0u, level, chunks, full_chunks);
    if (gl_WorkGroupID.x == 0u && lane == 0u) nodes[first_out + channel] = vec4(node.hi, node.lo, node.m2, 0.0);
    precise float variance = node.m2 * count_share;
    precise float shifted = variance + epsilon;
    precise float scale = inverse_root(shifted) * channel_constants.x;
    channel_constants = vec4(node.hi, node.lo, scale, channel_constants.y);
  }

  uint end = min((gl_WorkGroupID.x + 1u) * slice_length, window_length);
  uint i = gl_WorkGroupID.x * slice_length + lane;
  uint n = i / spatial;
  uint s = i - n * spatial;
  uint address = (n * channels + channel) * spatial + s;
  const vec4 k = channel_constants;
  for (; i < end; i += kWorkgroup) {
    if (kAccess == 1u) {
      precise vec4 centred = (quads_in[address] - k.x) - k.y;
      precise vec4 y = centred * k.z + k.w;
      quads_out[address] = y;
    } else {
      precise float centred = (values_in[address] - k.x) - k.y;
      precise float y = centred * k.z + k.w;
      values_out[address] = y;
    }
    address += step_address;
    s += step_spatial;
    if (s >= spatial) {
      s -= spatial;
      address += (channels - 1u) * spatial;
    }
  }
}
