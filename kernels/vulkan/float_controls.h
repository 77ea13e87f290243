// Asks a driver to keep to IEEE 754 where it offers a choice.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace normserve::vulkan {

// What a device offers for 32-bit floats; the names follow VkPhysicalDeviceFloatControlsProperties.
struct FloatControls {
  bool rounding_mode_rte = false;             // round to nearest, ties to even
  bool denorm_preserve = false;               // subnormal numbers are kept
  bool signed_zero_inf_nan_preserve = false;  // signs of zero, infinities and NaN are kept

  friend bool operator==(const FloatControls&, const FloatControls&) = default;
};

// `spirv`, a valid module of SPIR-V 1.4 or later, with the capabilities and execution modes of `controls` declared for
// every entry point. A module that declares float controls itself is not expected.
std::vector<uint32_t> DeclareFloatControls(absl::Span<const uint32_t> spirv, const FloatControls& controls);

}  // namespace normserve::vulkan
