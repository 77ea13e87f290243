// How an invocation and its workgroup reduce a tile of a channel. Included after tensor_access.glsl, the push constants
// below, and what a node is:
//
//   struct Node; kEmptyNode; Node merge_nodes(left, right, right_index, level): neighbours of one level, where `right` is
//   node right_index of it; Node full_chunk(inout Cursor); Node ragged_chunk(inout Cursor)
//
//   chunks, full_chunks   of a channel, the ragged one included or not
//   ragged_values         in the last chunk if it is ragged, else 0
//   window_tile           first tile of a channel in this window, which starts with it
//   lane_level_           at most kMaxLaneLevel: an invocation takes 2^lane_level consecutive chunks
//   columns_level         kColumns: 2^columns_level neighbouring channels to a workgroup
//
// A tile is one node: of the whole workgroup (level lane_level + log2(workgroup size)), or with kColumns of one
// invocation (level lane_level). With kMaxLaneLevel 0 an invocation takes one chunk and needs no memory for nodes that
// wait.

uint lane_level() { return kMaxLaneLevel == 0u ? 0u : lane_level_; }

#include "workgroup_tree.glsl"

Node four_chunks(inout Cursor cursor, uint index) {
  Node a = full_chunk(cursor), b = full_chunk(cursor), c = full_chunk(cursor), d = full_chunk(cursor);
  return merge_nodes(merge_nodes(a, b, index + 1u, 0u), merge_nodes(c, d, index + 3u, 0u), (index >> 1) + 1u, 1u);
}

// Left siblings that wait for their right one, by level.
Node waiting[kMaxLaneLevel + 1u];

// Adds node `index >> level` of `level`, whose first chunk is this invocation's `position`th, as a binary counter carries.
void push(Node node, uint level, uint position, uint index) {
  while (((position >> level) & 1u) != 0u) {
    node = merge_nodes(waiting[level], node, index >> level, level);
    ++level;
  }
  waiting[level] = node;
}

// The node of all `count` chunks pushed, of which the last is chunk `last`. What still waits joins from the right; a
// node with nothing to its right stands for its parents too.
Node joined(uint count, uint last) {
  if (count == 1u << lane_level()) return waiting[lane_level()];
  Node node = kEmptyNode;
  bool any = false;
  for (uint level = 0u; level < lane_level(); ++level) {
    if (((count >> level) & 1u) != 0u) {
      Node left = waiting[level];
      node = any ? merge_nodes(left, node, last >> level, level) : left;
      any = true;
    }
  }
  return node;
}

// The 2^lane_level chunks of a channel from `first` on, at `cursor`.
Node invocation_node(Cursor cursor, uint first) {
  uint count = min(1u << lane_level(), max(full_chunks, first) - first);
  bool ragged = ragged_values != 0u && full_chunks - first < 1u << lane_level() && full_chunks >= first;
  uint position = 0u;
  if (kMaxLaneLevel > 0u) {
    // Four chunks at a time in registers, which spares the waiting nodes' memory.
    for (; position + 4u <= count; position += 4u) {
      push(four_chunks(cursor, first + position), 2u, position, first + position);
    }
  }
  for (; position < count; ++position) push(full_chunk(cursor), 0u, position, first + position);
  if (ragged) {
    push(ragged_chunk(cursor), 0u, count, first + count);
    ++count;
  }
  return joined(count, first + count - 1u);
}

// The channel that an invocation works on; kColumns: channels or more for those beyond the last.
uint tile_channel() {
  if (kAccess != kColumns) return gl_WorkGroupID.y;
  return (gl_WorkGroupID.y << columns_level) + (gl_LocalInvocationID.x & ((1u << columns_level) - 1u));
}

// Which node an invocation ends up with, and whether it is the one to store it.
struct Tile {
  uint channel;
  uint index;
  bool stores;
};

// Grid: x = tile (kColumns: as many tiles as columns leave of a workgroup), y = channel (kColumns: 2^columns_level).
Node tile_node(out Tile tile) {
  uint lane = gl_LocalInvocationID.x;
  uint channel = tile_channel();
  if (kAccess == kColumns) {
    uint in_window = gl_WorkGroupID.x * (kWorkgroup >> columns_level) + (lane >> columns_level);
    tile = Tile(channel, window_tile + in_window, channel < channels && window_tile + in_window < tiles);
    if (!tile.stores) return kEmptyNode;
    return invocation_node(cursor_at(channel, (in_window << lane_level()) * 16u), tile.index << lane_level());
  }
  tile = Tile(channel, window_tile + gl_WorkGroupID.x, lane == 0u);
  uint first = (tile.index * kWorkgroup + lane) << lane_level();
  uint in_window = ((gl_WorkGroupID.x * kWorkgroup) + lane) << lane_level();
  Node node = invocation_node(cursor_at(channel, in_window * 16u), first);
  return workgroup_tree(node, tile.index * kWorkgroup, lane_level());
}
