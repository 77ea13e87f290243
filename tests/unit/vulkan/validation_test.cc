// The validation layer is really looking: a barrier left out is seen, one in its place is not complained about.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/vulkan/device_test_fixture.h"
#include "tests/unit/vulkan/validation_guard.h"

namespace normserve::vulkan {
namespace {

using testing::Contains;
using testing::Field;
using testing::HasSubstr;

class ValidationTest : public DeviceTest {
 protected:
  // x -> y -> z, with a barrier between or not. Only recorded: the layer looks at commands, and a race is never run.
  static void RecordChain(const OpenDevice& open, bool barrier) {
    auto x = OrDie(open.buffers->Acquire(4096, BufferUsage::kDevice));
    auto y = OrDie(open.buffers->Acquire(4096, BufferUsage::kDevice));
    auto z = OrDie(open.buffers->Acquire(4096, BufferUsage::kDevice));
    CommandRecorder recorder = OrDie(CommandRecorder::Begin(*open.device, *open.commands));
    DispatchScaleAdd(recorder, open, {x}, {y}, {1, 1, 1024});
    if (barrier) recorder.Barrier();
    DispatchScaleAdd(recorder, open, {y}, {z}, {1, 1, 1024});
    OrDie(std::move(recorder).Finish());
  }
};

// The canary of every test under the validation layer: without it, silence would prove nothing.
TEST_P(ValidationTest, AReadWithoutABarrierAfterTheWriteIsReported) {
  for (const char* mask : {"", "no_push_descriptors"}) {
    SCOPED_TRACE(mask);
    const OpenDevice open = Open({.mask = OrDie(ParseDeviceMask(mask))});
    const ExpectedValidationMessages expected;
    RecordChain(open, /*barrier=*/false);
    EXPECT_THAT(expected.messages(), Contains(Field(&ValidationMessage::id, HasSubstr("READ-AFTER-WRITE"))));
  }
}

TEST_P(ValidationTest, ABarrierBetweenThemIsEnough) {
  for (const char* mask : {"", "no_push_descriptors"}) {
    SCOPED_TRACE(mask);
    const OpenDevice open = Open({.mask = OrDie(ParseDeviceMask(mask))});
    const ExpectedValidationMessages expected;
    RecordChain(open, /*barrier=*/true);
    EXPECT_TRUE(expected.messages().empty()) << expected.messages()[0].text;
  }
}

TEST_P(ValidationTest, ACopyOfWhatADispatchWritesWithoutABarrierIsReported) {
  const OpenDevice open = Open();
  auto x = OrDie(open.buffers->Acquire(4096, BufferUsage::kDevice));
  auto y = OrDie(open.buffers->Acquire(4096, BufferUsage::kDevice));
  const ExpectedValidationMessages expected;
  CommandRecorder recorder = OrDie(CommandRecorder::Begin(*open.device, *open.commands));
  DispatchScaleAdd(recorder, open, {x}, {y}, {1, 1, 1024});
  recorder.CopyBuffer(y, 0, x, 0, 4096);
  OrDie(std::move(recorder).Finish());
  EXPECT_THAT(expected.messages(), Contains(Field(&ValidationMessage::id, HasSubstr("READ-AFTER-WRITE"))));
}

NORMSERVE_ON_EVERY_DEVICE(ValidationTest);

}  // namespace
}  // namespace normserve::vulkan
