// What keeps a machine from computing on its GPU, and what to do: a pure function over a snapshot.
#pragma once

#include <string>
#include <vector>

#include "kernels/vulkan/system_snapshot.h"

namespace normserve::vulkan {

enum class Severity { kInfo, kWarning, kError };

// "info", "warning", "error".
const char* SeverityName(Severity severity);

struct Finding {
  Severity severity = Severity::kInfo;
  std::string what;
  std::string what_to_do;  // a command or a sentence; empty if there is nothing to do
};

// The findings, the worst first. Errors keep every device from working; warnings keep a better one from it.
std::vector<Finding> Advise(const SystemSnapshot& system);

}  // namespace normserve::vulkan
