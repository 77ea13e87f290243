// What a device offers for floats is declared in the right places of a module, and nothing else is touched.
#include "kernels/vulkan/float_controls.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "kernels/shaders/scale_add.spv.h"
#include "tests/unit/vulkan/device_test_fixture.h"

namespace normserve::vulkan {
namespace {

using Instruction = std::vector<uint32_t>;

std::vector<Instruction> Instructions(absl::Span<const uint32_t> spirv) {
  std::vector<Instruction> instructions;
  for (size_t at = 5; at < spirv.size(); at += spirv[at] >> 16) {
    instructions.emplace_back(spirv.begin() + at, spirv.begin() + at + (spirv[at] >> 16));
  }
  return instructions;
}

TEST(FloatControlsTest, NothingOfferedChangesNothing) {
  EXPECT_THAT(DeclareFloatControls(kScaleAddSpirv, {}), testing::ElementsAreArray(kScaleAddSpirv));
}

TEST(FloatControlsTest, CapabilitiesComeFirstAndModesAfterTheEntryPoint) {
  std::vector<Instruction> expected = Instructions(kScaleAddSpirv);
  const auto entry =
      std::find_if(expected.begin(), expected.end(), [](const Instruction& i) { return (i[0] & 0xffff) == 15; });
  ASSERT_NE(entry, expected.end());
  const uint32_t main = (*entry)[2];
  // OpExecutionMode main RoundingModeRTE 32, and so on; the numbers are the specification's.
  expected.insert(entry + 1,
                  {{4u << 16 | 16, main, 4459, 32}, {4u << 16 | 16, main, 4461, 32}, {4u << 16 | 16, main, 4462, 32}});
  expected.insert(expected.begin(), {{2u << 16 | 17, 4464}, {2u << 16 | 17, 4466}, {2u << 16 | 17, 4467}});
  EXPECT_EQ(Instructions(DeclareFloatControls(kScaleAddSpirv, {true, true, true})), expected);
}

TEST(FloatControlsTest, EachIsDeclaredAlone) {
  const std::pair<FloatControls, uint32_t> kinds[] = {{{.rounding_mode_rte = true}, 4462},
                                                      {{.denorm_preserve = true}, 4459},
                                                      {{.signed_zero_inf_nan_preserve = true}, 4461}};
  for (const auto& [controls, mode] : kinds) {
    std::vector<uint32_t> modes;
    for (const Instruction& i : Instructions(DeclareFloatControls(kScaleAddSpirv, controls))) {
      if ((i[0] & 0xffff) == 16 && i.size() == 4 && i[2] > 4000) modes.push_back(i[2]);
    }
    EXPECT_THAT(modes, testing::ElementsAre(mode));
  }
}

class FloatControlsDeviceTest : public DeviceTest {};

TEST_P(FloatControlsDeviceTest, AMaskTakesThemAway) {
  const OpenDevice open = Open({.mask = OrDie(ParseDeviceMask("no_float_controls"))});
  EXPECT_EQ(open.device->float_controls(), FloatControls());
  // Both drivers that the tests know offer some.
  EXPECT_NE(Open({}).device->float_controls(), FloatControls());
}

NORMSERVE_ON_EVERY_DEVICE(FloatControlsDeviceTest);

}  // namespace
}  // namespace normserve::vulkan
