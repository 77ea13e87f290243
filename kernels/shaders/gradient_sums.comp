// gradient_sums: what a batch's gradients are made of, of each tile of each channel.
//
// Grid and tiles: channel_tree.glsl. A chunk of 16 values is four steps of vec4, each component with sums of its own,
// which then merge pairwise. Sums and products keep what rounding loses, so that the gradients of weight and bias are
// right where their terms cancel. What a sum that is infinite or NaN has lost is NaN until the merge drops it.
//
//   0  x           block of the batch, [N, C, S], dense
//   1  g           gradient of the output, as x
//   2  parameters  LevelWeights (unused here), then [C, 2] of (hi, lo, scale, power) and (epsilon as hi, lo, 0, 0), where
//                  hi + lo is the mean and x - mean is multiplied by power, a power of two that brings it near 1: so
//                  products stay in float32's range, and no bit changes. epsilon is multiplied by it twice
//   3  nodes       out, [C, tiles, 2] of (g, product) and (xc, square), a pair each
//
// The squares are summed with kFromBatch only: where the variance was the batch's own, so that the gradient of the input
// has it to the last digit of a pair.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "pair.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint kMaxLaneLevel = 0;
layout(constant_id = 2) const bool kFromBatch = false;

layout(std430, binding = 2) readonly buffer Parameters {
  LevelWeights level_weights[kLevels];
  vec4 constants[];
};
layout(std430, binding = 3) writeonly buffer Nodes { vec4 nodes[]; };

layout(push_constant) uniform Push {
  uint channels;       // C of the block
  uint spatial;        // S
  uint chunks;
  uint full_chunks;
  uint ragged_values;
  uint window_tile;
  uint tiles;          // of a channel, in all windows
  uint lane_level_;
  uint columns_level;
};

#include "tensor_access.glsl"
#include "gradient_node.glsl"
READ_TENSOR(x, 0)
READ_TENSOR(g, 1)

// The channel's mean, hi and lo, and power: set before the first chunk.
vec2 mean;
float power;

// Sums of one chunk so far, by component.
struct Sums {
  vec4 g_hi, g_lo, product_hi, product_lo, xc_hi, xc_lo, square_hi, square_lo;
};

// Adds `term` to hi + lo; what rounding lost goes to lo together with `rest`.
void accumulate(inout vec4 hi, inout vec4 lo, vec4 term, vec4 rest) {
  precise vec4 sum = hi + term;
  precise vec4 term_part = sum - hi;
  precise vec4 hi_part = sum - term_part;
  precise vec4 lost = (hi - hi_part) + (term - term_part);
  precise vec4 lo_sum = lo + (lost + rest);
  hi = sum;
  lo = lo_sum;
}

// One step; where `valid` is false the values count as nothing.
void add_step(inout Sums sums, vec4 x, vec4 g, bvec4 valid) {
  // (x - mean) * power as u + e, where e is small beside u also where the mean's lower half is not.
  precise vec4 difference = x - mean.x;
  precise vec4 mean_part = difference - x;
  precise vec4 x_part = difference - mean_part;
  precise vec4 lost = (x - x_part) + (-mean.x - mean_part);
  precise vec4 upper = difference * power, lower = (lost - mean.y) * power;
  lower = if_finite(upper, lower);
  precise vec4 u = upper + lower;
  precise vec4 lower_part = u - upper;
  precise vec4 upper_part = u - lower_part;
  precise vec4 e = (upper - upper_part) + (lower - lower_part);
  u = mix(vec4(0.0), u, valid);
  e = mix(vec4(0.0), e, valid);
  g = mix(vec4(0.0), g, valid);
  // g * (u + e) as p + q.
  precise vec4 p = g * u;
  precise vec4 g_hi = upper_half(g), u_hi = upper_half(u);
  precise vec4 g_lo = g - g_hi, u_lo = u - u_hi;
  precise vec4 q = ((((g_hi * u_hi - p) + g_hi * u_lo) + g_lo * u_hi) + g_lo * u_lo) + g * e;
  accumulate(sums.g_hi, sums.g_lo, g, vec4(0.0));
  accumulate(sums.product_hi, sums.product_lo, p, q);
  accumulate(sums.xc_hi, sums.xc_lo, u, e);
  if (kFromBatch) {
    // (u + e)^2.
    precise vec4 square = u * u;
    precise vec4 cross = u_hi * u_lo;
    precise vec4 twice_ue = 2.0 * (u * e);
    precise vec4 rest = ((((u_hi * u_hi - square) + cross) + cross) + u_lo * u_lo) + twice_ue;
    accumulate(sums.square_hi, sums.square_lo, square, rest);
  }
}

Pair across(vec4 hi, vec4 lo) {
  return add_pairs(add_pairs(Pair(hi.x, lo.x), Pair(hi.y, lo.y)), add_pairs(Pair(hi.z, lo.z), Pair(hi.w, lo.w)));
}

Node chunk_node(Sums sums) {
  return Node(across(sums.g_hi, sums.g_lo), across(sums.product_hi, sums.product_lo), across(sums.xc_hi, sums.xc_lo),
              kFromBatch ? across(sums.square_hi, sums.square_lo) : Pair(0.0, 0.0));
}

const Sums kNoSums =
    Sums(vec4(0.0), vec4(0.0), vec4(0.0), vec4(0.0), vec4(0.0), vec4(0.0), vec4(0.0), vec4(0.0));

Node full_chunk(inout Cursor cursor) {
  Addresses at = full_chunk_addresses(cursor);
  Sums sums = kNoSums;
  for (uint k = 0u; k < 4u; ++k) {
    add_step(sums, CHUNK_QUAD(x, at.quad[k]), CHUNK_QUAD(g, at.quad[k]), bvec4(true));
  }
  return chunk_node(sums);
}

Node ragged_chunk(inout Cursor cursor) {
  Sums sums = kNoSums;
  for (uint k = 0u; k < 4u; ++k) {
    vec4 x = vec4(0.0), g = vec4(0.0);
    bvec4 valid;
    for (uint i = 0u; i < 4u; ++i) {
      valid[i] = 4u * k + i < ragged_values;
      if (valid[i]) {
        x[i] = x_at(cursor.address);
        g[i] = g_at(cursor.address);
        advance(cursor, 1u);
      }
    }
    add_step(sums, x, g, valid);
  }
  return chunk_node(sums);
}

#include "channel_tree.glsl"

void main() {
  uint channel = tile_channel();
  vec4 given = constants[2u * min(channel, channels - 1u)];
  mean = given.xy;
  power = given.w;
  Tile tile;
  Node node = tile_node(tile);
  if (tile.stores) {
    uint index = 2u * (tile.channel * tiles + tile.index);
    nodes[index] = first_half(node);
    nodes[index + 1u] = second_half(node);
  }
}
