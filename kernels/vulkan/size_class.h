// The sizes that pooled blocks come in.
#pragma once

#include <cstdint>

namespace normserve::vulkan {

// The smallest class that holds `size_bytes` (>= 1): 256, 512, 768 … up to 2 KiB, then eight steps an octave, so that a
// block is at most an eighth larger than asked for, or 255 bytes if that is more. Every class is a multiple of 256.
uint64_t SizeClass(uint64_t size_bytes);

}  // namespace normserve::vulkan
