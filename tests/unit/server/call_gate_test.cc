#include "server/rpc/call_gate.h"

#include <gtest/gtest.h>

#include <thread>

#include "tests/unit/server/status_matchers.h"

namespace normserve {
namespace {

TEST(CallGate, BytesBeyondTheLimitAreRefusedUntilOthersAreGivenBack) {
  const auto gate = std::make_shared<CallGate>(100);
  auto first = gate->TakeBytes(60);
  ASSERT_TRUE(first.ok());
  EXPECT_THAT(gate->TakeBytes(41).status(), Fails(absl::StatusCode::kResourceExhausted, ErrorReason::kLimitReached));
  auto second = gate->TakeBytes(40);
  ASSERT_TRUE(second.ok());
  CallGate::Pass copy = *first;
  first->reset();
  EXPECT_FALSE(gate->TakeBytes(1).ok()) << "a copy still holds the bytes";
  copy.reset();
  EXPECT_TRUE(gate->TakeBytes(60).ok());
}

TEST(CallGate, DrainingRefusesNewCallsAndWaitsForThoseInWork) {
  const auto gate = std::make_shared<CallGate>(100);
  auto pass = gate->Enter();
  ASSERT_TRUE(pass.ok());
  gate->StartDraining();
  EXPECT_THAT(gate->Enter().status(), Fails(absl::StatusCode::kUnavailable, ErrorReason::kDraining));
  EXPECT_FALSE(gate->WaitForCalls(absl::ZeroDuration()));
  std::thread caller([held = *std::move(pass)]() mutable { held.reset(); });
  EXPECT_TRUE(gate->WaitForCalls(absl::InfiniteDuration()));
  caller.join();
}

TEST(CallGate, APassMayOutliveTheGatesOwner) {
  auto gate = std::make_shared<CallGate>(100);
  const auto pass = gate->TakeBytes(1);
  gate.reset();
  EXPECT_TRUE(pass.ok());
}

}  // namespace
}  // namespace normserve
