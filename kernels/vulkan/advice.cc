#include "kernels/vulkan/advice.h"

#include <algorithm>
#include <iterator>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace normserve::vulkan {
namespace {

constexpr char kAmd[] = "0x1002";
constexpr char kIntel[] = "0x8086";
constexpr char kNvidia[] = "0x10de";

bool IsGpu(const DeviceSnapshot& device) {
  return device.type == DeviceType::kDiscreteGpu || device.type == DeviceType::kIntegratedGpu ||
         device.type == DeviceType::kVirtualGpu;
}

// A GPU that can be used.
bool HasGpu(const SystemSnapshot& system) {
  return std::any_of(system.devices.begin(), system.devices.end(),
                     [](const DeviceSnapshot& device) { return IsGpu(device) && MissingRequirements(device).empty(); });
}

bool HasUsableDevice(const SystemSnapshot& system) {
  return std::any_of(system.devices.begin(), system.devices.end(),
                     [](const DeviceSnapshot& device) { return MissingRequirements(device).empty(); });
}

bool HasVendor(const SystemSnapshot& system, const char* vendor) {
  return std::find(system.gpu_vendors.begin(), system.gpu_vendors.end(), vendor) != system.gpu_vendors.end();
}

bool HasIcdFor(const SystemSnapshot& system, const char* part) {
  return std::any_of(system.icd_files.begin(), system.icd_files.end(), [part](const IcdFile& file) {
    return absl::StrContains(absl::AsciiStrToLower(file.path), part) ||
           absl::StrContains(absl::AsciiStrToLower(file.library_path), part);
  });
}

void AdviseOnLoader(const SystemSnapshot& system, std::vector<Finding>& findings) {
  if (system.loader_status.ok()) return;
  findings.push_back({Severity::kError, "there is no Vulkan loader (libvulkan.so.1)",
                      "apt-get install libvulkan1 mesa-vulkan-drivers"});
}

void AdviseOnIcdFiles(const SystemSnapshot& system, std::vector<Finding>& findings) {
  if (!system.icd_override_variable.empty()) {
    findings.push_back(
        {Severity::kInfo,
         absl::StrCat(system.icd_override_variable, " is set: the loader sees only the drivers it names"),
         absl::StrCat("unset ", system.icd_override_variable, " to see every installed driver")});
  }
  if (system.icd_files.empty()) {
    findings.push_back({Severity::kError, "there is no Vulkan driver: the loader finds no manifest (icd.d/*.json)",
                        system.icd_override_variable.empty() ? "apt-get install mesa-vulkan-drivers (AMD, Intel, and "
                                                               "computing without a GPU), or install NVIDIA's driver"
                                                             : absl::StrCat("correct ", system.icd_override_variable,
                                                                            ", which names no manifest that exists")});
  }
  for (const IcdFile& file : system.icd_files) {
    if (file.loadable) continue;
    findings.push_back({Severity::kWarning,
                        absl::StrCat("the driver of ", file.path, " cannot be used: ", file.problem),
                        "install the package that holds its library again, or remove the manifest"});
  }
}

void AdviseOnDevices(const SystemSnapshot& system, std::vector<Finding>& findings) {
  const bool usable = HasUsableDevice(system);
  for (const DeviceSnapshot& device : system.devices) {
    const std::vector<std::string> missing = MissingRequirements(device);
    if (missing.empty()) continue;
    findings.push_back(
        {usable ? Severity::kWarning : Severity::kError,
         absl::StrCat("device ", device.index, " (", device.name, ") cannot be used: ", absl::StrJoin(missing, "; ")),
         "install a newer driver, on Debian 12 for example Mesa from bookworm-backports"});
  }
  if (!system.devices.empty() || !system.loader_status.ok() || system.icd_files.empty()) return;
  findings.push_back({Severity::kError,
                      system.device_status.ok()
                          ? std::string("the drivers are there, but none of them offers a device")
                          : absl::StrCat("the drivers offer no device: ", std::string(system.device_status.message())),
                      "follow the other findings, or compute without a GPU: apt-get install mesa-vulkan-drivers"});
}

void AdviseOnRenderNodes(const SystemSnapshot& system, std::vector<Finding>& findings) {
  for (const DeviceNode& node : system.render_nodes) {
    if (node.accessible) continue;
    findings.push_back({Severity::kWarning,
                        absl::StrFormat("user %s may not open %s (group %s, mode %04o), so its GPU is not seen",
                                        system.user, node.path, node.group, node.mode),
                        system.container.in_container
                            ? absl::StrCat("start the container with --group-add ", node.group_id)
                            : absl::StrCat("sudo usermod -aG ", node.group, " ", system.user, ", then log in again")});
  }
  if (!system.render_nodes.empty() || (!HasVendor(system, kAmd) && !HasVendor(system, kIntel))) return;
  const char* vendor = HasVendor(system, kAmd) ? "AMD" : "Intel";
  if (system.container.in_container) {
    findings.push_back(
        {Severity::kWarning,
         absl::StrCat("the machine has a GPU (", vendor, "), but this container has no /dev/dri/renderD*"),
         "start the container with --device /dev/dri --group-add \"$(stat -c %g /dev/dri/renderD128)\""});
  } else {
    findings.push_back(
        {Severity::kWarning,
         absl::StrCat("the machine has a GPU (", vendor, "), but its kernel driver made no /dev/dri/renderD*"),
         HasVendor(system, kAmd)
             ? "apt-get install firmware-amd-graphics, then restart; `dmesg | grep amdgpu` says more"
             : "look for the reason with `dmesg | grep -E 'i915|xe'`"});
  }
}

void AdviseOnNvidia(const SystemSnapshot& system, std::vector<Finding>& findings) {
  if (!HasVendor(system, kNvidia) && system.nvidia_nodes.empty()) return;
  const bool in_container = system.container.in_container;
  if (system.nvidia_nodes.empty()) {
    // The free driver, whose node is a render node, is dealt with there.
    if (!system.render_nodes.empty()) return;
    findings.push_back(
        {Severity::kWarning, "the machine has an NVIDIA GPU, but there is no /dev/nvidia0",
         in_container
             ? "start the container with --gpus all -e NVIDIA_DRIVER_CAPABILITIES=compute,graphics,utility (the "
               "host needs NVIDIA's driver and nvidia-container-toolkit)"
             : "install NVIDIA's driver (Debian: apt-get install nvidia-driver nvidia-vulkan-icd), then restart"});
    return;
  }
  for (const DeviceNode& node : system.nvidia_nodes) {
    if (node.accessible) continue;
    findings.push_back({Severity::kWarning,
                        absl::StrFormat("user %s may not open %s (group %s, mode %04o), so the GPU is not seen",
                                        system.user, node.path, node.group, node.mode),
                        in_container
                            ? absl::StrCat("start the container with --group-add ", node.group_id)
                            : absl::StrCat("sudo usermod -aG ", node.group, " ", system.user, ", then log in again")});
  }
  if (HasGpu(system)) return;
  if (!HasIcdFor(system, "nvidia")) {
    findings.push_back(
        {Severity::kWarning, "NVIDIA's kernel driver is there, but not its Vulkan driver (no manifest nvidia_icd.json)",
         in_container ? "start the container with -e NVIDIA_DRIVER_CAPABILITIES=compute,graphics,utility: without "
                        "`graphics` the Vulkan driver is not put in"
                      : "apt-get install nvidia-vulkan-icd, of the same version as the driver"});
  } else {
    findings.push_back(
        {Severity::kWarning, "NVIDIA's Vulkan driver is there, but offers no device",
         "apt-get install libgl1 libegl1 libxext6, which its library needs also without a screen; if that "
         "does not help, let VK_DRIVER_FILES name a manifest whose library_path is libEGL_nvidia.so.0"});
  }
}

void AdviseOnCpuDriver(const SystemSnapshot& system, bool gpu_problem_found, std::vector<Finding>& findings) {
  if (!HasUsableDevice(system) || HasGpu(system)) return;
  if (gpu_problem_found) {
    findings.push_back({Severity::kWarning, "only CPU drivers can be used: everything is computed on the processor",
                        "follow the other findings to use the GPU"});
    return;
  }
  findings.push_back({Severity::kInfo, "no GPU was found: everything is computed on the processor",
                      system.container.in_container
                          ? "if the machine has one, start the container with --device /dev/dri "
                            "(AMD, Intel) or --gpus all (NVIDIA)"
                          : ""});
}

}  // namespace

const char* SeverityName(Severity severity) {
  switch (severity) {
    case Severity::kInfo:
      return "info";
    case Severity::kWarning:
      return "warning";
    case Severity::kError:
      return "error";
  }
  return "error";
}

std::vector<Finding> Advise(const SystemSnapshot& system) {
  std::vector<Finding> findings;
  AdviseOnLoader(system, findings);
  AdviseOnIcdFiles(system, findings);
  AdviseOnDevices(system, findings);
  const size_t before_gpus = findings.size();
  AdviseOnRenderNodes(system, findings);
  AdviseOnNvidia(system, findings);
  const bool unusable_gpu = std::any_of(system.devices.begin(), system.devices.end(), IsGpu);
  AdviseOnCpuDriver(system, findings.size() > before_gpus || unusable_gpu, findings);
  std::vector<Finding> worst_first;
  for (const Severity severity : {Severity::kError, Severity::kWarning, Severity::kInfo}) {
    std::copy_if(findings.begin(), findings.end(), std::back_inserter(worst_first),
                 [severity](const Finding& finding) { return finding.severity == severity; });
  }
  return worst_first;
}

}  // namespace normserve::vulkan
