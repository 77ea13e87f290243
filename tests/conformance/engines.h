// The engines that the suite runs: each kernel implementation on each device that this machine has.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/engine.h"

namespace normserve::conformance {

struct EngineUnderTest {
  std::string name;  // letters and digits
  std::function<absl::StatusOr<std::unique_ptr<Engine>>()> factory;
};

// All of them, whether or not this machine can make them.
const std::vector<EngineUnderTest>& EnginesUnderTest();

// The engine called `name`, made at its first use and kept until DestroySharedEngines: starting a Vulkan driver for
// each case would cost more than the cases. The factory's error if it cannot be made, and for a name that is not in the
// list.
absl::StatusOr<Engine*> SharedEngine(const std::string& name);

// Ends every shared engine. To be called before main returns: drivers tear themselves down on exit, and an engine that
// is destroyed later finds them gone.
void DestroySharedEngines();

}  // namespace normserve::conformance
