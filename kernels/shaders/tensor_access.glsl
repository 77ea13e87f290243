// Where a channel's values lie and how they are read and stored. Included after the push constants `channels` and
// `spatial`. ACCESS and ELEMENT are given to the compiler.
//
//   kAccess   how a chunk's values lie: 0 anyhow; 1 in runs of four (S % 4 == 0); 2 in one run (S % 16 == 0, or the
//             whole channel is one run); 3 in columns (S == 1): neighbouring invocations take neighbouring channels
//   kElement  0 float32; 1 float16; 2 bfloat16. Two 16-bit values share a word, the first in its lower half. They are
//             converted by integers and exact sums, as kernels/element_type.cc does, so no 16-bit feature is needed.

const uint kAccess = ACCESS, kElement = ELEMENT;
const uint kScalar = 0u, kQuads = 1u, kRuns = 2u, kColumns = 3u;
const uint kFloat32 = 0u, kFloat16 = 1u, kBFloat16 = 2u;

// For scalars and vectors: NUMBER, with UINT bits. Selections, no branches: a driver that inlines all of it needs gigabytes for
// the branches.
#define CONVERSIONS(NUMBER, UINT)                                                                    \
  NUMBER decode(UINT bits) {                                                                         \
    if (kElement == kBFloat16) return uintBitsToFloat(bits << 16);                                   \
    UINT magnitude = bits & 0x7fffu;                                                                 \
    /* Infinity and NaN get the exponent 255; subnormals are 2^-14 * (1 + m / 2^10) - 2^-14. */      \
    UINT exponent = mix(UINT(112u << 23), UINT(224u << 23), at_least(magnitude, UINT(0x7c00u))); \
    UINT normal = (magnitude << 13) + exponent;                                                      \
    precise NUMBER small = uintBitsToFloat((113u << 23) | (magnitude << 13)) - uintBitsToFloat(113u << 23); \
    UINT result = mix(floatBitsToUint(small), normal, at_least(magnitude, UINT(0x0400u)));  \
    return uintBitsToFloat(result | ((bits & 0x8000u) << 16));                                       \
  }                                                                                                  \
  /* The nearest, ties to even; beyond the largest infinity. */                                      \
  UINT encode(NUMBER value) {                                                                        \
    UINT bits = floatBitsToUint(value);                                                              \
    UINT magnitude = bits & 0x7fffffffu;                                                             \
    if (kElement == kBFloat16) {                                                                     \
      UINT rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;                                   \
      return mix(rounded, (bits >> 16) | 0x40u, at_least(magnitude, UINT(0x7f800001u)));    \
    }                                                                                                \
    UINT normal = (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;              \
    precise NUMBER shifted = uintBitsToFloat(magnitude) + 0.5; /* whose last place is 2^-24, half's smallest */ \
    UINT small = floatBitsToUint(shifted) - 0x3f000000u;                                             \
    UINT result = mix(small, normal, at_least(magnitude, UINT(113u << 23)));                \
    result = mix(result, UINT(0x7c00u), at_least(magnitude, UINT(0x477ff000u)));            \
    result = mix(result, UINT(0x7e00u), at_least(magnitude, UINT(0x7f800001u)));            \
    return result | ((bits >> 16) & 0x8000u);                                                        \
  }

bool at_least(uint a, uint b) { return a >= b; }
bvec2 at_least(uvec2 a, uvec2 b) { return greaterThanEqual(a, b); }
bvec4 at_least(uvec4 a, uvec4 b) { return greaterThanEqual(a, b); }

CONVERSIONS(float, uint)
CONVERSIONS(vec2, uvec2)
CONVERSIONS(vec4, uvec4)

vec2 decode_word(uint word) { return decode(uvec2(word & 0xffffu, word >> 16)); }
vec4 decode_words(uvec2 words) {
  return decode(uvec4(words.x & 0xffffu, words.x >> 16, words.y & 0xffffu, words.y >> 16));
}

uint encode_word(vec2 values) {
  uvec2 bits = encode(values);
  return bits.x | (bits.y << 16);
}
uvec2 encode_words(vec4 values) {
  uvec4 bits = encode(values);
  return bits.xz | (bits.yw << 16);
}

// Declares a tensor for reading at `slot`: NAME_at(address), NAME_quad(address), which is a multiple of four, and
// NAME_word(word), two 16-bit values.
#define READ_TENSOR(NAME, slot)                                                                      \
  layout(std430, binding = slot) readonly buffer NAME##Words { uint NAME##_words[]; };               \
  layout(std430, binding = slot) readonly buffer NAME##Pairs { uvec2 NAME##_pairs[]; };              \
  layout(std430, binding = slot) readonly buffer NAME##Quads { uvec4 NAME##_quads[]; };              \
  float NAME##_at(uint address) {                                                                    \
    if (kElement == kFloat32) return uintBitsToFloat(NAME##_words[address]);                         \
    return decode((NAME##_words[address >> 1] >> ((address & 1u) * 16u)) & 0xffffu);                 \
  }                                                                                                  \
  vec4 NAME##_quad(uint address) {                                                                   \
    if (kElement == kFloat32) return uintBitsToFloat(NAME##_quads[address >> 2]);                    \
    return decode_words(NAME##_pairs[address >> 2]);                                                 \
  }                                                                                                  \
  vec2 NAME##_word(uint word) { return decode_word(NAME##_words[word]); }

// Declares a tensor for storing at `slot`: NAME_store(address, value), NAME_store_quad(address, values), and
// NAME_store_word(word, values) for two 16-bit values that fill a word. A single 16-bit value shares its word with one
// of another invocation: exclusive or changes the one half and leaves the other, whatever comes first.
#define WRITE_TENSOR(NAME, slot)                                                                     \
  layout(std430, binding = slot) buffer NAME##Words { uint NAME##_words[]; };                        \
  layout(std430, binding = slot) writeonly buffer NAME##Pairs { uvec2 NAME##_pairs[]; };             \
  layout(std430, binding = slot) writeonly buffer NAME##Quads { uvec4 NAME##_quads[]; };             \
  void NAME##_store(uint address, float value) {                                                     \
    if (kElement == kFloat32) {                                                                      \
      NAME##_words[address] = floatBitsToUint(value);                                                \
      return;                                                                                        \
    }                                                                                                \
    uint shift = (address & 1u) * 16u;                                                               \
    uint before = (NAME##_words[address >> 1] >> shift) & 0xffffu;                                   \
    atomicXor(NAME##_words[address >> 1], (before ^ encode(value)) << shift);                        \
  }                                                                                                  \
  void NAME##_store_quad(uint address, vec4 values) {                                                \
    if (kElement == kFloat32) {                                                                      \
      NAME##_quads[address >> 2] = floatBitsToUint(values);                                          \
    } else {                                                                                         \
      NAME##_pairs[address >> 2] = encode_words(values);                                             \
    }                                                                                                \
  }                                                                                                  \
  void NAME##_store_word(uint word, vec2 values) { NAME##_words[word] = encode_word(values); }

// Where the next value of an invocation is.
struct Cursor {
  uint address;
  uint s;
};

// At value i of the channel, counted from where the buffer begins.
Cursor cursor_at(uint channel, uint i) {
  if (kAccess == kColumns) return Cursor(i * channels + channel, 0u);
  uint n = i / spatial;
  return Cursor((n * channels + channel) * spatial + (i - n * spatial), i - n * spatial);
}

// Moves on by `count` values, which end their plane (one sample's values of the channel) at most.
void advance(inout Cursor cursor, uint count) {
  if (kAccess == kColumns) {
    cursor.address += count * channels;
    return;
  }
  cursor.address += count;
  cursor.s += count;
  if (cursor.s >= spatial) {
    cursor.s -= spatial;
    cursor.address += (channels - 1u) * spatial;
  }
}

// The addresses of a chunk's values: quad k begins at [k].x; [k].yzw are the others where they may lie anyhow.
struct Addresses {
  uvec4 quad[4];
};

bool reads_quads() { return kAccess == kQuads || kAccess == kRuns; }

Addresses full_chunk_addresses(inout Cursor cursor) {
  Addresses addresses;
  if (kAccess == kRuns) {
    for (uint k = 0u; k < 4u; ++k) addresses.quad[k] = uvec4(cursor.address + 4u * k);
    advance(cursor, 16u);
    return addresses;
  }
  for (uint k = 0u; k < 4u; ++k) {
    addresses.quad[k].x = cursor.address;
    if (kAccess == kQuads) {
      advance(cursor, 4u);
      continue;
    }
    advance(cursor, 1u);
    addresses.quad[k].y = cursor.address;
    advance(cursor, 1u);
    addresses.quad[k].z = cursor.address;
    advance(cursor, 1u);
    addresses.quad[k].w = cursor.address;
    advance(cursor, 1u);
  }
  return addresses;
}

// The values of a tensor at addresses[k] of such a chunk.
#define CHUNK_QUAD(NAME, at)                                                                         \
  (reads_quads() ? NAME##_quad((at).x) : vec4(NAME##_at((at).x), NAME##_at((at).y), NAME##_at((at).z), NAME##_at((at).w)))
