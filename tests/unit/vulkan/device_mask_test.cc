// The text of a device mask says what it does, and nothing else is taken.
#include "kernels/vulkan/device_mask.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace normserve::vulkan {
namespace {

TEST(DeviceMaskTest, TextGoesThereAndBack) {
  for (const std::string text :
       {"", "staging", "no_push_descriptors", "no_float_controls", "max_storage_buffer_range=1048576,staging",
        "max_storage_buffer_range=1,max_allocation_size=18446744073709551615,max_workgroup_invocations=64,"
        "max_workgroup_count=65535,max_shared_memory_bytes=16384,staging,no_push_descriptors,no_float_controls"}) {
    auto mask = ParseDeviceMask(text);
    ASSERT_TRUE(mask.ok()) << mask.status();
    EXPECT_EQ(DeviceMaskText(*mask), text);
  }
  EXPECT_EQ(*ParseDeviceMask(" staging , max_workgroup_count=7 "),
            (DeviceMask{.max_workgroup_count = 7, .no_host_visible_device_memory = true}));
}

TEST(DeviceMaskTest, AnythingElseIsRefusedByName) {
  for (const std::string text : {"stagin", "staging,staging", "staging=1", "max_workgroup_count",
                                 "max_workgroup_count=", "max_workgroup_count=0", "max_workgroup_count=-1",
                                 "max_workgroup_count=4294967296", "max_storage_buffer_range=1MiB", "staging,", ","}) {
    const absl::Status status = ParseDeviceMask(text).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << text << ": " << status;
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr("max_storage_buffer_range=BYTES"));
  }
}

}  // namespace
}  // namespace normserve::vulkan
