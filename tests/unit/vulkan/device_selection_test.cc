// Which device is chosen, as a pure function of what is there.
#include "kernels/vulkan/device_selection.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace normserve::vulkan {
namespace {

using testing::HasSubstr;

DeviceSnapshot Device(size_t index, const std::string& name, DeviceType type, const std::string& driver = "driver") {
  DeviceSnapshot device;
  device.index = index;
  device.name = name;
  device.uuid = std::string(31, '0') + "abcdef"[index];
  device.type = type;
  device.driver_name = driver;
  device.api_version_major = 1;
  device.api_version_minor = 2;
  device.compute_queue_family = 0;
  device.timeline_semaphore = true;
  return device;
}

DeviceSnapshot Old(DeviceSnapshot device) {
  device.api_version_minor = 1;
  device.timeline_semaphore = false;
  return device;
}

const DeviceSnapshot kLavapipe = Device(0, "llvmpipe (LLVM 15.0.6, 256 bits)", DeviceType::kCpu, "llvmpipe");
const DeviceSnapshot kSwiftShader =
    Device(1, "SwiftShader Device (LLVM 10.0.0)", DeviceType::kCpu, "SwiftShader driver");
const DeviceSnapshot kIntegrated = Device(2, "Intel(R) UHD Graphics", DeviceType::kIntegratedGpu, "Intel ANV");
const DeviceSnapshot kDiscrete = Device(3, "NVIDIA GeForce RTX 4090", DeviceType::kDiscreteGpu, "NVIDIA");
const DeviceSnapshot kVirtual = Device(4, "Virtio-GPU Venus", DeviceType::kVirtualGpu, "venus");

TEST(SelectDeviceTest, ChoosesWhatTheTableSays) {
  struct Case {
    const char* why;
    std::vector<DeviceSnapshot> devices;
    SelectionOptions options;
    std::string chosen;  // name
    bool warns = false;
  };
  const std::vector<DeviceSnapshot> all = {kLavapipe, kSwiftShader, kIntegrated, kDiscrete, kVirtual};
  const Case cases[] = {
      {"discrete before all", all, {}, kDiscrete.name},
      {"integrated before virtual", {kLavapipe, kVirtual, kIntegrated}, {}, kIntegrated.name},
      {"virtual before CPU", {kLavapipe, kVirtual}, {}, kVirtual.name},
      {"the first of equals", {kSwiftShader, kLavapipe}, {}, kSwiftShader.name, true},
      {"a GPU that lacks something is passed over", {Old(kDiscrete), kLavapipe}, {}, kLavapipe.name, true},
      {"by index", all, {.device = "1"}, kSwiftShader.name, true},
      {"by a part of the name, whatever the case", all, {.device = "uhd"}, kIntegrated.name},
      {"by the driver's name", all, {.device = "venus"}, kVirtual.name},
      {"a number beyond the list is a part of a name", all, {.device = "4090"}, kDiscrete.name},
      {"by UUID", all, {.device = kIntegrated.uuid}, kIntegrated.name},
      {"by UUID with dashes and capitals",
       all,
       {.device = "00000000-0000-0000-0000-00000000000B"},
       kSwiftShader.name,
       true},
      {"the best of several that the name fits", all, {.device = "e"}, kDiscrete.name},
      {"a GPU is required and there", all, {.require_gpu = true}, kDiscrete.name},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.why);
    auto selection = SelectDevice(c.devices, c.options);
    ASSERT_TRUE(selection.ok()) << selection.status();
    EXPECT_EQ(c.devices[selection->chosen].name, c.chosen);
    EXPECT_EQ(selection->warning.has_value(), c.warns);
    ASSERT_EQ(selection->reasons.size(), c.devices.size());
    for (size_t i = 0; i < c.devices.size(); ++i) {
      EXPECT_EQ(selection->reasons[i].rfind("chosen", 0) == 0, i == selection->chosen) << selection->reasons[i];
    }
  }
}

TEST(SelectDeviceTest, RefusesAndSaysWhatIsThereAndWhatToDo) {
  struct Case {
    const char* why;
    std::vector<DeviceSnapshot> devices;
    SelectionOptions options;
    absl::StatusCode code;
    std::vector<std::string> says;
  };
  constexpr absl::StatusCode kPrecondition = absl::StatusCode::kFailedPrecondition;
  const Case cases[] = {
      {"none there", {}, {}, kPrecondition, {"no Vulkan device", "mesa-vulkan-drivers"}},
      {"no such name",
       {kLavapipe, kDiscrete},
       {.device = "Arc"},
       absl::StatusCode::kNotFound,
       {"\"Arc\"", kLavapipe.name, kDiscrete.name, "index"}},
      {"the one named lacks something",
       {kLavapipe, Old(kDiscrete)},
       {.device = "RTX"},
       kPrecondition,
       {"\"RTX\"", "Vulkan 1.1, needs 1.2", "timeline"}},
      {"only CPU drivers", {kLavapipe}, {.require_gpu = true}, kPrecondition, {"no GPU", kLavapipe.name}},
      {"all lack something", {Old(kLavapipe)}, {}, kPrecondition, {"cannot be used"}},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.why);
    const absl::Status status = SelectDevice(c.devices, c.options).status();
    EXPECT_EQ(status.code(), c.code) << status;
    for (const std::string& text : c.says) EXPECT_THAT(std::string(status.message()), HasSubstr(text));
  }
}

TEST(SelectDeviceTest, EveryMissingRequirementIsNamed) {
  DeviceSnapshot device = Old(kDiscrete);
  device.compute_queue_family.reset();
  EXPECT_EQ(MissingRequirements(device).size(), 3u);
  EXPECT_TRUE(MissingRequirements(kDiscrete).empty());
}

}  // namespace
}  // namespace normserve::vulkan
