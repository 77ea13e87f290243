// gradient_input: the gradient of the input, per channel.
//
// Grid: tensor_slice.glsl. With kFromBatch the batch's own mean and variance were used, so that the gradient runs through
// them: the channel's nodes are merged first (channel_nodes.glsl), the first slice also writes them out, and
//
//   ((g - mean of g) - xc * k) * scale,  k = (covariance of g and xc) / (variance of xc + epsilon)
//
// where xc and epsilon are multiplied by the channel's power of two as in gradient_sums, with every difference and product as a pair, because the terms may cancel; where they are not finite, the rounded
// terms alone count, as IEEE 754 says. For two values a channel that is (g - mean of g) * scale * epsilon / (variance of
// xc + epsilon), and nothing cancels. Else g * scale. No invocation reads a value
// that another writes: the result takes the place of g.
//
//   0  x           block of the batch, [N, C, S], dense; only with kFromBatch
//   1  g           gradient of the output, the same shape; out: gradient of the input
//   2  parameters  as in gradient_sums
//   3  nodes       only with kFromBatch: from node first_in on [C, count_in, 2] as in gradient_sums; out, from node
//                  first_out on [C, 2], the same of the whole channel
#version 460
#extension GL_GOOGLE_include_directive : require
#include "pair.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const bool kFromBatch = false;
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
  uint chunks;         // of a channel, as in gradient_sums
  uint first_in;
  uint count_in;       // nodes of a channel
  uint first_out;
  uint level;          // of the nodes in
  float share_hi;      // 1 / count of the sums, as a pair
  float share_lo;
};

#include "tensor_access.glsl"
#include "tensor_slice.glsl"
#include "gradient_node.glsl"
#include "channel_nodes.glsl"
READ_TENSOR(x, 0)
READ_TENSOR(g, 1)
WRITE_TENSOR(out_g, 1)

Node load_node(uint channel, uint index) {
  uint at = 2u * (first_in + channel * count_in + index);
  return unpack_node(nodes[at], nodes[at + 1u]);
}

struct Constants {
  float hi, lo, scale, power;  // mean of x as the host gave it, weight / sqrt(variance + epsilon)
  Pair mean_g;
  float mean_xc;        // what is left of rounding the mean
  Pair k;
};

// By bits, so that nothing hangs on what a driver makes of -0 or subnormals.
bool is_zero(float a) { return (floatBitsToUint(a) & 0x7fffffffu) == 0u; }

// 1 / a by Newton's steps from an integer seed, the last of them in pairs. A constant channel without epsilon is divided
// by 1, not 0.
Pair reciprocal(Pair a) {
  a = Pair(mix(a.hi, 1.0, is_zero(a.hi)), a.lo);
  precise float r = uintBitsToFloat(0x7ef311c7u - floatBitsToUint(a.hi));
  for (int i = 0; i < 3; ++i) {
    precise float error = 1.0 - a.hi * r;
    r = r + r * error;
  }
  Pair rough = Pair(r, 0.0);
  Pair product = multiply_pairs(a, rough);
  Pair error = add_pairs(Pair(1.0, 0.0), Pair(-product.hi, -product.lo));
  return add_pairs(rough, multiply_pairs(rough, error));
}

// a - b * c.
Pair subtract_product(Pair a, Pair b, Pair c) {
  Pair product = multiply_pairs(b, c);
  return add_pairs(a, Pair(-product.hi, -product.lo));
}

Constants channel_constants(uint channel, bool stores) {
  vec4 given = constants[2u * channel];
  Constants result = Constants(given.x, given.y, given.z, given.w, Pair(0.0, 0.0), 0.0, Pair(0.0, 0.0));
  if (!kFromBatch) return result;
  Node node = channel_node(channel);
  if (stores) {
    uint at = 2u * (first_out + channel);
    nodes[at] = first_half(node);
    nodes[at + 1u] = second_half(node);
  }
  Pair share = Pair(share_hi, share_lo);
  vec4 more = constants[2u * channel + 1u];
  result.mean_g = multiply_pairs(node.g, share);
  Pair mean_xc = multiply_pairs(node.xc, share);
  // A sum of g that is not finite leaves nothing to correct.
  Pair g = Pair(if_finite(node.g.hi, node.g.hi), node.g.lo);
  Pair covariance = multiply_pairs(subtract_product(node.product, mean_xc, g), share);
  Pair variance = multiply_pairs(subtract_product(node.square, mean_xc, node.xc), share);
  result.mean_xc = mean_xc.hi;
  Pair epsilon = Pair(more.x, more.y), shifted = add_pairs(variance, epsilon), inverse = reciprocal(shifted);
  result.k = multiply_pairs(covariance, inverse);
  if (floatBitsToUint(share_hi) == 0x3f000000u) {  // 1 / 2
    precise float k_hi = result.k.hi * 0.0, k_lo = result.k.lo * 0.0;
    precise float scale = result.scale * multiply_pairs(epsilon, inverse).hi;
    result.k = Pair(k_hi, k_lo);
    result.scale = mix(scale, result.scale, is_zero(shifted.hi));
  }
  return result;
}

float gradient(float x, float g, Constants c) {
  precise float simple = g * c.scale;
  if (!kFromBatch) return simple;
  Pair u = two_sum(x, -c.hi);
  precise float upper = u.hi * c.power;
  precise float lower = (u.lo - c.lo) * c.power - c.mean_xc;
  Pair xc = two_sum(upper, lower);
  Pair r = two_sum(g, -c.mean_g.hi);
  Pair p = two_product(xc.hi, c.k.hi);
  Pair t = two_sum(r.hi, -p.hi);
  precise float rest = (((r.lo - c.mean_g.lo) + t.lo) - p.lo) - (xc.hi * c.k.lo + xc.lo * c.k.hi);
  precise float result = (t.hi + if_finite(t.hi, rest)) * c.scale;
  return result;
}

void main() {
  uint column = slice_column();
  if (kAccess == kColumns && column * kChannelsPerColumn >= channels) return;
  Slice slice = slice_begin(column);
  bool stores = slice.i == 0u;
  Constants c = channel_constants(column * kChannelsPerColumn, stores);
  if (kPaired) {
    Constants second = channel_constants(column * 2u + 1u, stores);
    for (; slice.i < slice.end; slice_next(slice)) {
      vec2 x = kFromBatch ? x_word(slice.address) : vec2(0.0), g = g_word(slice.address);
      out_g_store_word(slice.address, vec2(gradient(x.x, g.x, c), gradient(x.y, g.y, second)));
    }
    return;
  }
  for (; slice.i < slice.end; slice_next(slice)) {
    if (kAccess == kQuads) {
      vec4 x = kFromBatch ? x_quad(slice.address * 4u) : vec4(0.0), g = g_quad(slice.address * 4u);
      out_g_store_quad(slice.address * 4u, vec4(gradient(x.x, g.x, c), gradient(x.y, g.y, c), gradient(x.z, g.z, c),
                                                gradient(x.w, g.w, c)));
    } else {
      float x = kFromBatch ? x_at(slice.address) : 0.0;
      out_g_store(slice.address, gradient(x, g_at(slice.address), c));
    }
  }
}
