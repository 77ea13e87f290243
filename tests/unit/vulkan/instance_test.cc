// An instance that cannot be made says what to install.
#include "kernels/vulkan/instance.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <optional>
#include <string>

#include "kernels/vulkan/device_selection.h"

namespace normserve::vulkan {
namespace {

// Sets an environment variable while it lives.
class ScopedVariable {
 public:
  ScopedVariable(const char* name, const char* value) : name_(name) {
    if (const char* old = std::getenv(name)) old_ = old;
    setenv(name, value, 1);
  }
  ~ScopedVariable() {
    if (old_.has_value()) {
      setenv(name_, old_->c_str(), 1);
    } else {
      unsetenv(name_);
    }
  }

 private:
  const char* const name_;
  std::optional<std::string> old_;
};

TEST(InstanceTest, AMissingValidationLayerIsNamedWithItsPackage) {
  const ScopedVariable no_layers("VK_LAYER_PATH", "/nonexistent");
  const absl::Status status = Instance::Create({.validation = true}).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("vulkan-validationlayers"));
  EXPECT_TRUE(Instance::Create().ok());
}

TEST(InstanceTest, AMachineWithoutDriversIsToldWhatToInstall) {
  const ScopedVariable none("VK_ICD_FILENAMES", "/nonexistent.json");
  const ScopedVariable none_by_the_newer_name("VK_DRIVER_FILES", "/nonexistent.json");
  absl::Status status;
  auto instance = Instance::Create();
  if (instance.ok()) {
    // Newer loaders make an instance and list no device.
    auto devices = Enumerate(**instance);
    ASSERT_TRUE(devices.ok()) << devices.status();
    status = SelectDevice(*devices, {}).status();
  } else {
    status = instance.status();
  }
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("mesa-vulkan-drivers"));
}

TEST(InstanceTest, TwoInstancesLiveBesideEachOther) {
  auto first = Instance::Create();
  auto second = Instance::Create();
  ASSERT_TRUE(first.ok() && second.ok());
  first->reset();
  auto devices = Enumerate(**second);
  ASSERT_TRUE(devices.ok());
  EXPECT_FALSE(devices->empty());
}

TEST(InstanceTest, EveryDeviceHasAUuidOfItsOwn) {
  auto instance = Instance::Create();
  ASSERT_TRUE(instance.ok());
  auto devices = Enumerate(**instance);
  ASSERT_TRUE(devices.ok());
  for (const DeviceSnapshot& device : *devices) {
    EXPECT_EQ(device.uuid.size(), 32u);
    EXPECT_FALSE(device.driver_name.empty());
    for (const DeviceSnapshot& other : *devices) {
      EXPECT_TRUE(other.index == device.index || other.uuid != device.uuid) << device.uuid;
    }
  }
}

}  // namespace
}  // namespace normserve::vulkan
