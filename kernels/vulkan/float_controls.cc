#include "kernels/vulkan/float_controls.h"

#include <cstddef>

#include "kernels/check.h"

namespace normserve::vulkan {
namespace {

// From the SPIR-V specification, sections 2.3, 3.6, 3.31 and 3.52.
constexpr size_t kHeaderWords = 5;
constexpr uint32_t kOpEntryPoint = 15;
constexpr uint32_t kOpExecutionMode = 16;
constexpr uint32_t kOpCapability = 17;
constexpr uint32_t kDenormPreserve = 4459, kDenormPreserveCapability = 4464;
constexpr uint32_t kSignedZeroInfNanPreserve = 4461, kSignedZeroInfNanPreserveCapability = 4466;
constexpr uint32_t kRoundingModeRte = 4462, kRoundingModeRteCapability = 4467;
constexpr uint32_t kFloatBits = 32;

constexpr uint32_t FirstWord(uint32_t words, uint32_t operation) { return words << 16 | operation; }

}  // namespace

std::vector<uint32_t> DeclareFloatControls(absl::Span<const uint32_t> spirv, const FloatControls& controls) {
  NORMSERVE_CHECK(spirv.size() > kHeaderWords);
  std::vector<uint32_t> capabilities, modes;
  auto declare = [&](bool offered, uint32_t capability, uint32_t mode) {
    if (!offered) return;
    capabilities.insert(capabilities.end(), {FirstWord(2, kOpCapability), capability});
    modes.push_back(mode);
  };
  declare(controls.denorm_preserve, kDenormPreserveCapability, kDenormPreserve);
  declare(controls.signed_zero_inf_nan_preserve, kSignedZeroInfNanPreserveCapability, kSignedZeroInfNanPreserve);
  declare(controls.rounding_mode_rte, kRoundingModeRteCapability, kRoundingModeRte);

  // Capabilities come first of all; execution modes follow the entry points.
  std::vector<uint32_t> declared(spirv.begin(), spirv.begin() + kHeaderWords);
  declared.insert(declared.end(), capabilities.begin(), capabilities.end());
  std::vector<uint32_t> entry_points;
  for (size_t at = kHeaderWords; at < spirv.size();) {
    const uint32_t words = spirv[at] >> 16, operation = spirv[at] & 0xffffu;
    NORMSERVE_CHECK(words > 0 && at + words <= spirv.size());
    if (operation == kOpEntryPoint) {
      entry_points.push_back(spirv[at + 2]);
    } else if (!entry_points.empty()) {
      for (uint32_t entry_point : entry_points) {
        for (uint32_t mode : modes) {
          declared.insert(declared.end(), {FirstWord(4, kOpExecutionMode), entry_point, mode, kFloatBits});
        }
      }
      entry_points.clear();
    }
    declared.insert(declared.end(), spirv.begin() + static_cast<ptrdiff_t>(at),
                    spirv.begin() + static_cast<ptrdiff_t>(at + words));
    at += words;
  }
  return declared;
}

}  // namespace normserve::vulkan
