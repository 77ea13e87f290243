// normalise: y = ((x - hi) - lo) * scale + bias, per channel.
//
// Grid: tensor_slice.glsl. With kFromNodes the channel's nodes are merged first (channel_nodes.glsl) into the batch's
// mean and M2, and scale is derived from them; the first slice also writes them out. Else the host has put hi, lo, scale
// and bias into `constants`.
//
// The mean is subtracted as hi, then lo: a single float32 mean would limit y where |mean| >> std. No invocation reads
// a value that another writes, so x and y may be the same memory.
//
//   0  x           block of the batch, [N, C, S], dense
//   1  y           out, the same shape
//   2  parameters  LevelWeights of each level, then `constants`: [C] of (hi, lo, scale, bias), or of (weight, bias, 0, 0)
//                  with kFromNodes
//   3  nodes       only with kFromNodes: from node first_in on [C, count_in] of (hi, lo, M2, 0); out, from node
//                  first_out on [C], the same of the whole channel
#version 460
#extension GL_GOOGLE_include_directive : require
#include "pair.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const bool kFromNodes = false;
layout(constant_id = 2) const bool kPaired = false;

layout(std430, binding = 2) readonly buffer Parameters {
  LevelWeights level_weights[kLevels];
  vec4 constants[];
};
layout(std430, binding = 3) buffer Nodes { vec4 nodes[]; };

layout(push_constant) uniform Push {
  uint channels;       // C of the block
  uint spatial;        // S
  uint window_length;
  uint slice_length;
  uint step_address;
  uint step_spatial;
  uint columns_level;
  uint chunks;         // of a channel, as in moments
  uint full_chunks;
  uint first_in;
  uint count_in;       // nodes of a channel
  uint first_out;
  uint level;          // of the nodes in
  float count_share;   // 1 / values per channel
  float epsilon;
};

#include "tensor_access.glsl"
#include "tensor_slice.glsl"
#include "moments_node.glsl"
#include "channel_nodes.glsl"
READ_TENSOR(x, 0)
WRITE_TENSOR(y, 1)

Node load_node(uint channel, uint index) { return unpack_node(nodes[first_in + channel * count_in + index]); }

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

// (hi, lo, scale, bias) of a channel.
vec4 channel_constants(uint channel, bool stores) {
  vec4 given = constants[channel];
  if (!kFromNodes) return given;
  Node node = channel_node(channel);
  if (stores) nodes[first_out + channel] = pack_node(node);
  precise float variance = node.m2 * count_share;
  precise float shifted = variance + epsilon;
  precise float scale = inverse_root(shifted) * given.x;
  return vec4(node.hi, node.lo, scale, given.y);
}

void main() {
  uint column = slice_column();
  if (kAccess == kColumns && column * kChannelsPerColumn >= channels) return;
  Slice slice = slice_begin(column);
  bool stores = slice.i == 0u;
  vec4 k = channel_constants(column * kChannelsPerColumn, stores);
  if (kPaired) {
    vec4 second = channel_constants(column * 2u + 1u, stores);
    for (; slice.i < slice.end; slice_next(slice)) {
      vec2 hi = vec2(k.x, second.x), lo = vec2(k.y, second.y);
      precise vec2 centred = (x_word(slice.address) - hi) - lo;
      precise vec2 y = centred * vec2(k.z, second.z) + vec2(k.w, second.w);
      y_store_word(slice.address, y);
    }
    return;
  }
  for (; slice.i < slice.end; slice_next(slice)) {
    if (kAccess == kQuads) {
      precise vec4 centred = (x_quad(slice.address * 4u) - k.x) - k.y;
      precise vec4 y = centred * k.z + k.w;
      y_store_quad(slice.address * 4u, y);
    } else {
      precise float centred = (x_at(slice.address) - k.x) - k.y;
      precise float y = centred * k.z + k.w;
      y_store(slice.address, y);
    }
  }
}
