// Everything `normctl doctor` shows about this machine, whether or not anything works.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "kernels/vulkan/advice.h"
#include "kernels/vulkan/device_selection.h"
#include "kernels/vulkan/system_snapshot.h"

namespace normserve::vulkan {

struct Diagnosis {
  SystemSnapshot system;
  // Which device a server started with the same options would choose, with a reason per device; or why none.
  absl::StatusOr<Selection> selection;
  std::vector<Finding> findings;  // the worst first
};

// Never fails: what could not be found out is part of the answer.
Diagnosis Diagnose(const SelectionOptions& options = {});

}  // namespace normserve::vulkan
