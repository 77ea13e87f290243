#include "kernels/vulkan/diagnosis.h"

#include <utility>

namespace normserve::vulkan {

Diagnosis Diagnose(const SelectionOptions& options) {
  SystemSnapshot system = InspectSystem();
  // Why there is no list says more than that it is empty.
  absl::StatusOr<Selection> selection = system.device_status.ok() ? SelectDevice(system.devices, options)
                                                                  : absl::StatusOr<Selection>(system.device_status);
  std::vector<Finding> findings = Advise(system);
  return Diagnosis{std::move(system), std::move(selection), std::move(findings)};
}

}  // namespace normserve::vulkan
