// How a shader that writes a tensor goes through its values. Included after tensor_access.glsl, the specialisation constant
// kPaired and the push constants below.
//
//   window_length   values of a channel in this window
//   slice_length    a workgroup's share of them
//   step_address    how far one step of all invocations moves the address, before wrapping
//   step_spatial    and the position in the plane; less than `spatial`
//   columns_level   kColumns: 2^columns_level neighbouring columns to a workgroup
//
// Grid: x = slice, y = channel (kColumns: 2^columns_level columns). kAccess is kScalar, kQuads, where all lengths are in
// quads, or kColumns, where a column is a channel or, with kPaired (16 bits, C even), two that share words.

const uint kChannelsPerColumn = kPaired ? 2u : 1u;

struct Slice {
  uint i;        // the value at hand, counted from the window's begin
  uint end;
  uint address;  // of it, in the unit of kAccess
  uint s;
};

uint slice_column() {
  if (kAccess != kColumns) return gl_WorkGroupID.y;
  return (gl_WorkGroupID.y << columns_level) + (gl_LocalInvocationID.x & ((1u << columns_level) - 1u));
}

uint slice_stride() { return kAccess == kColumns ? gl_WorkGroupSize.x >> columns_level : gl_WorkGroupSize.x; }

// Of an invocation of `column`.
Slice slice_begin(uint column) {
  Slice slice;
  uint lane = kAccess == kColumns ? gl_LocalInvocationID.x >> columns_level : gl_LocalInvocationID.x;
  slice.end = min((gl_WorkGroupID.x + 1u) * slice_length, window_length);
  slice.i = gl_WorkGroupID.x * slice_length + lane;
  if (kAccess == kColumns) {
    slice.address = slice.i * (channels / kChannelsPerColumn) + column;
    slice.s = 0u;
    return slice;
  }
  uint n = slice.i / spatial;
  slice.s = slice.i - n * spatial;
  slice.address = (n * channels + column) * spatial + slice.s;
  return slice;
}

void slice_next(inout Slice slice) {
  slice.i += slice_stride();
  slice.address += step_address;
  if (kAccess == kColumns) return;
  slice.s += step_spatial;
  if (slice.s >= spatial) {
    slice.s -= spatial;
    slice.address += (channels - 1u) * spatial;
  }
}
