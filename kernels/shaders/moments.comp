// moments: mean and M2 of each tile of each channel.
//
// Grid and tiles: channel_tree.glsl. A chunk of 16 values is reduced in registers: an exact two-pass after its first
// value is subtracted.
//
//   0  x           block of the batch, [N, C, S], dense
//   1  parameters  LevelWeights of each level, then what normalise reads
//   2  nodes       out, [C, tiles] of (hi, lo, M2, 0)
#version 460
#extension GL_GOOGLE_include_directive : require
#include "pair.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint kMaxLaneLevel = 0;

layout(std430, binding = 1) readonly buffer Parameters { LevelWeights level_weights[kLevels]; };
layout(std430, binding = 2) writeonly buffer Nodes { vec4 nodes[]; };

layout(push_constant) uniform Push {
  uint channels;       // C of the block
  uint spatial;        // S
  uint chunks;
  uint full_chunks;
  uint ragged_values;
  float ragged_share;  // 1 / ragged_values
  uint window_tile;
  uint tiles;          // of a channel, in all windows
  uint lane_level_;
  uint columns_level;
};

#include "tensor_access.glsl"
#include "moments_node.glsl"
READ_TENSOR(x, 0)

// The node of 16 values given as differences to `pivot`, `valid` of them real (x, y, z, w of d0, then d1 ...); those
// that are not hold 0. share is 1 / valid.
Node chunk_node(float pivot, vec4 d0, vec4 d1, vec4 d2, vec4 d3, uint valid, float share) {
  precise vec4 sums = (d0 + d1) + (d2 + d3);
  precise float sum = (sums.x + sums.y) + (sums.z + sums.w);
  precise float mean = sum * share;
  precise vec4 e0 = d0 - mean, e1 = d1 - mean, e2 = d2 - mean, e3 = d3 - mean;
  if (valid < 16u) {
    uvec4 lanes = uvec4(0u, 1u, 2u, 3u);
    e0 = mix(vec4(0.0), e0, lessThan(lanes, uvec4(valid)));
    e1 = mix(vec4(0.0), e1, lessThan(lanes + 4u, uvec4(valid)));
    e2 = mix(vec4(0.0), e2, lessThan(lanes + 8u, uvec4(valid)));
    e3 = mix(vec4(0.0), e3, lessThan(lanes + 12u, uvec4(valid)));
  }
  precise vec4 squares = (e0 * e0 + e1 * e1) + (e2 * e2 + e3 * e3);
  precise float m2 = (squares.x + squares.y) + (squares.z + squares.w);
  Pair centre = two_sum(pivot, mean);
  return Node(centre.hi, centre.lo, m2);
}

Node full_chunk(inout Cursor cursor) {
  Addresses at = full_chunk_addresses(cursor);
  vec4 x0 = CHUNK_QUAD(x, at.quad[0]), x1 = CHUNK_QUAD(x, at.quad[1]);
  vec4 x2 = CHUNK_QUAD(x, at.quad[2]), x3 = CHUNK_QUAD(x, at.quad[3]);
  float pivot = x0.x;
  precise vec4 d0 = x0 - pivot, d1 = x1 - pivot, d2 = x2 - pivot, d3 = x3 - pivot;
  return chunk_node(pivot, d0, d1, d2, d3, 16u, 0.0625);
}

Node ragged_chunk(inout Cursor cursor) {
  vec4 d[4];
  float pivot = x_at(cursor.address);
  for (uint i = 0u; i < 16u; ++i) {
    precise float difference = 0.0;
    if (i < ragged_values) {
      difference = x_at(cursor.address) - pivot;
      advance(cursor, 1u);
    }
    d[i >> 2][i & 3u] = difference;
  }
  return chunk_node(pivot, d[0], d[1], d[2], d[3], ragged_values, ragged_share);
}

#include "channel_tree.glsl"

void main() {
  Tile tile;
  Node node = tile_node(tile);
  if (tile.stores) nodes[tile.channel * tiles + tile.index] = pack_node(node);
}
