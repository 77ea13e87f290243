#include "kernels/vulkan/size_class.h"

#include <bit>

namespace normserve::vulkan {

uint64_t SizeClass(uint64_t size_bytes) {
  constexpr uint64_t kSmallestStep = 256;
  const uint64_t octave = std::bit_floor(size_bytes);  // octave <= size < 2 * octave
  const uint64_t step = octave / 8 > kSmallestStep ? octave / 8 : kSmallestStep;
  return (size_bytes + step - 1) / step * step;
}

}  // namespace normserve::vulkan
