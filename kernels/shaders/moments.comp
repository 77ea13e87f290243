// moments: mean and M2 of each tile of each channel.
//
// Grid: x = tile of this window, y = channel of this block. A workgroup reduces one tile: each invocation takes
// 2^lane_level consecutive chunks of 16 values, a chunk in registers (exact two-pass after its first value is
// subtracted), merges them as they come, and the workgroup merges its invocations' nodes in shared memory. The tile is
// a node of moments_tree.glsl of level lane_level + log2(workgroup size). With kMaxLaneLevel 0 an invocation takes one
// chunk and needs no memory for nodes that wait.
//
//   0  x           block of the batch, [N, C, S] float32, dense
//   1  parameters  LevelWeights of each level, then what normalise reads
//   2  nodes       out, [C, tiles] of (hi, lo, M2, 0)
//
// kAccess says how a chunk's values lie: 0 anyhow (any S), 1 in runs of four (S % 4 == 0), 2 in one run (S % 16 == 0,
// or the whole channel is one run).
#version 460
#extension GL_GOOGLE_include_directive : require
#include "moments_tree.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint kMaxLaneLevel = 0;
layout(constant_id = 2) const uint kAccess = 0;

layout(std430, binding = 0) readonly buffer Values { float values[]; };
layout(std430, binding = 0) readonly buffer Quads { vec4 quads[]; };
layout(std430, binding = 1) readonly buffer Parameters { LevelWeights level_weights[kLevels]; };
layout(std430, binding = 2) writeonly buffer Nodes { vec4 nodes[]; };

layout(push_constant) uniform Push {
  uint channels;       // C of the block
  uint spatial;        // S
  uint chunks;         // of a channel, the ragged one included
  uint full_chunks;    // of a channel
  uint ragged_values;  // in the last chunk if it is ragged, else 0
  float ragged_share;  // 1 / ragged_values
  uint window_tile;    // first tile of a channel in this window, which starts with it
  uint tiles;          // of a channel, in all windows
  uint lane_level_;    // at most kMaxLaneLevel
};

uint lane_level() { return kMaxLaneLevel == 0u ? 0u : lane_level_; }

#include "workgroup_tree.glsl"

// Where the next value of this invocation is.
struct Cursor {
  uint address;
  uint s;
};

// Moves on by `count` values, which end their plane (one sample's values of the channel) at most.
void advance(inout Cursor cursor, uint count) {
  cursor.address += count;
  cursor.s += count;
  if (cursor.s >= spatial) {
    cursor.s -= spatial;
    cursor.address += (channels - 1u) * spatial;
  }
}

float load_value(inout Cursor cursor) {
  float value = values[cursor.address];
  advance(cursor, 1u);
  return value;
}

vec4 load_quad(inout Cursor cursor) {
  if (kAccess == 0u) {
    float x = load_value(cursor), y = load_value(cursor), z = load_value(cursor), w = load_value(cursor);
    return vec4(x, y, z, w);
  }
  vec4 quad = quads[cursor.address >> 2];
  advance(cursor, 4u);
  return quad;
}

// The node of 16 values given as differences to `pivot`, `valid` of them real (x, y, z, w of d0, then d1 ...); those
// that are not hold 0. share is 1 / valid.
Node chunk_node(float pivot, vec4 d0, vec4 d1, vec4 d2, vec4 d3, uint valid, float share) {
  precise vec4 sums = (d0 + d1) + (d2 + d3);
  precise float sum = (sums.x + sums.y) + (sums.z + sums.w);
  precise float mean = sum * share;
  precise vec4 e0 = d0 - mean, e1 = d1 - mean, e2 = d2 - mean, e3 = d3 - mean;
  if (valid < kChunk) {
    uvec4 lanes = uvec4(0u, 1u, 2u, 3u);
    e0 = mix(vec4(0.0), e0, lessThan(lanes, uvec4(valid)));
    e1 = mix(vec4(0.0), e1, lessThan(lanes + 4u, uvec4(valid)));
    e2 = mix(vec4(0.0), e2, lessThan(lanes + 8u, uvec4(valid)));
    e3 = mix(vec4(0.0), e3, lessThan(lanes + 12u, uvec4(valid)));
  }
  precise vec4 squares = (e0 * e0 + e1 * e1) + (e2 * e2 + e3 * e3);
  precise float m2 = (squares.x + squares.y) + (squares.z + squares.w);
  Node node = two_sum(pivot, mean);
  return Node(node.hi, node.lo, m2);
}

Node full_chunk(inout Cursor cursor) {
  vec4 x0, x1, x2, x3;
  if (kAccess == 2u) {
    uint quad = cursor.address >> 2;
    x0 = quads[quad], x1 = quads[quad + 1u], x2 = quads[quad + 2u], x3 = quads[quad + 3u];
    advance(cursor, kChunk);
  } else {
    x0 = load_quad(cursor), x1 = load_quad(cursor), x2 = load_quad(cursor), x3 = load_quad(cursor);
  }
  float pivot = x0.x;
  precise vec4 d0 = x0 - pivot, d1 = x1 - pivot, d2 = x2 - pivot, d3 = x3 - pivot;
  return chunk_node(pivot, d0, d1, d2, d3, kChunk, 0.0625);
}

Node ragged_chunk(inout Cursor cursor) {
  vec4 d[4];
  float pivot = values[cursor.address];
  for (uint i = 0u; i < kChunk; ++i) {
    precise float difference = 0.0;
    if (i < ragged_values) difference = load_value(cursor) - pivot;
    d[i >> 2][i & 3u] = difference;
  }
  return chunk_node(pivot, d[0], d[1], d[2], d[3], ragged_values, ragged_share);
}

// Full chunks need no weights of ragged nodes.
Node merge_full(Node left, Node right, uint level) {
  return merge(left, right, 0u, level, 1u << (level + 1u), 1u << (level + 1u), level_weights[level]);
}

Node four_chunks(inout Cursor cursor, uint index) {
  Node a = full_chunk(cursor), b = full_chunk(cursor), c = full_chunk(cursor), d = full_chunk(cursor);
  return merge_full(merge_full(a, b, 0u), merge_full(c, d, 0u), 1u);
}

// Left siblings that wait for their right one, by level.
Node waiting[kMaxLaneLevel + 1u];

// Adds node `index >> level` of `level`, whose first chunk is this invocation's `position`th, as a binary counter carries.
void push(Node node, uint level, uint position, uint index) {
  while (((position >> level) & 1u) != 0u) {
    node = merge(waiting[level], node, index >> level, level, chunks, full_chunks, level_weights[level]);
    ++level;
  }
  waiting[level] = node;
}

// The node of all `count` chunks pushed, of which the last is chunk `last`. What still waits joins from the right; a
// node with nothing to its right stands for its parents too.
Node joined(uint count, uint last) {
  if (count == 1u << lane_level()) return waiting[lane_level()];
  Node node = Node(0.0, 0.0, 0.0);
  bool any = false;
  for (uint level = 0u; level < lane_level(); ++level) {
    if (((count >> level) & 1u) != 0u) {
      Node left = waiting[level];
      if (any) {
        node = merge(left, node, last >> level, level, chunks, full_chunks, level_weights[level]);
      } else {
        node = left;
      }
      any = true;
    }
  }
  return node;
}

void main() {
  uint lane = gl_LocalInvocationID.x;
  uint channel = gl_WorkGroupID.y;
  uint tile = window_tile + gl_WorkGroupID.x;
  uint first = (tile * kWorkgroup + lane) << lane_level();  // chunk
  uint count = min(1u << lane_level(), max(full_chunks, first) - first);
  bool ragged = ragged_values != 0u && full_chunks - first < 1u << lane_level() && full_chunks >= first;

  uint i = (((gl_WorkGroupID.x * kWorkgroup) + lane) << lane_level()) * kChunk;  // value, counted from the window
  uint n = i / spatial;
  Cursor cursor = Cursor((n * channels + channel) * spatial + (i - n * spatial), i - n * spatial);

  uint position = 0u;
  if (kMaxLaneLevel > 0u) {
    // Four chunks at a time in registers, which spares the waiting nodes' memory.
    for (; position + 4u <= count; position += 4u) push(four_chunks(cursor, first + position), 2u, position, first + position);
  }
  for (; position < count; ++position) push(full_chunk(cursor), 0u, position, first + position);
  if (ragged) {
    push(ragged_chunk(cursor), 0u, count, first + count);
    ++count;
  }
  Node node = workgroup_tree(joined(count, first + count - 1u), tile * kWorkgroup, lane_level(), chunks, full_chunks);
  if (lane == 0u) nodes[channel * tiles + tile] = vec4(node.hi, node.lo, node.m2, 0.0);
}
