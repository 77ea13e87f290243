#include "tests/conformance/engines.h"

#include <map>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "kernels/bit_model.h"
#include "kernels/reference_engine.h"
#include "kernels/vulkan_engine.h"
#include "tests/unit/vulkan/validation_guard.h"

namespace normserve::conformance {
namespace {

using EngineOr = absl::StatusOr<std::unique_ptr<Engine>>;

// On the driver whose name holds `device`, made poorer by `mask`, with the planner's choices fixed by `plan`. The
// validation layer listens, and memory that is read too early or too late shows as NaN.
EngineUnderTest OnVulkan(std::string name, std::string device, std::string mask = "", PlanOptions plan = {}) {
  return {
      std::move(name), [=]() -> EngineOr {
        auto parsed = vulkan::ParseDeviceMask(mask);
        if (!parsed.ok()) return parsed.status();
        return VulkanEngine::Create({.selection = {.device = device},
                                     .mask = *parsed,
                                     .instance = {.validation = true, .on_message = vulkan::FailOnValidationMessage()},
                                     .pool = {.poison = true},
                                     .plan = plan});
      }};
}

}  // namespace

const std::vector<EngineUnderTest>& EnginesUnderTest() {
  static const auto* engines = new std::vector<EngineUnderTest>{
      {"reference", []() -> EngineOr { return std::make_unique<ReferenceEngine>(); }},
      {"bits", []() -> EngineOr { return std::make_unique<BitModelEngine>(); }},
      OnVulkan("lavapipe", "llvmpipe"),
      OnVulkan("swiftshader", "swiftshader"),
      // Tensors beyond maxStorageBufferRange, in blocks and windows.
      OnVulkan("lavapipe1MiB", "llvmpipe", "max_storage_buffer_range=1048576"),
      OnVulkan("swiftshader1MiB", "swiftshader", "max_storage_buffer_range=1048576"),
      // As on a discrete GPU, and as a GPU's planner would cut it up.
      OnVulkan("lavapipeStaged", "llvmpipe", "staging,no_push_descriptors", {.workgroup_size = 256, .lane_level = 0}),
      OnVulkan("swiftshaderWide", "swiftshader", "", {.workgroup_size = 64, .lane_level = 1}),
      // The least that Vulkan 1.2 promises of a workgroup and a grid; tensors in several allocations.
      OnVulkan("lavapipeLeast", "llvmpipe",
               "no_push_descriptors,no_float_controls,max_storage_buffer_range=1048576,max_allocation_size=2097152,"
               "max_workgroup_invocations=128,max_workgroup_count=65535,max_shared_memory_bytes=16384"),
      OnVulkan("lavapipeNarrow", "llvmpipe", "", {.workgroup_size = 2, .lane_level = 0}),
  };
  return *engines;
}

namespace {

absl::Mutex shared_mutex(absl::kConstInit);

// Guarded by shared_mutex.
std::map<std::string, EngineOr>& SharedEngines() {
  static auto* engines = new std::map<std::string, EngineOr>;
  return *engines;
}

}  // namespace

absl::StatusOr<Engine*> SharedEngine(const std::string& name) {
  absl::MutexLock lock(&shared_mutex);
  auto found = SharedEngines().find(name);
  if (found == SharedEngines().end()) {
    EngineOr engine = absl::NotFoundError(absl::StrCat("no engine called ", name));
    for (const EngineUnderTest& candidate : EnginesUnderTest()) {
      if (candidate.name == name) engine = candidate.factory();
    }
    found = SharedEngines().emplace(name, std::move(engine)).first;
  }
  if (!found->second.ok()) return found->second.status();
  return found->second->get();
}

void DestroySharedEngines() {
  absl::MutexLock lock(&shared_mutex);
  SharedEngines().clear();
}

}  // namespace normserve::conformance
