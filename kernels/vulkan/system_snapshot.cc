#include "kernels/vulkan/system_snapshot.h"

#include <grp.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <system_error>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "kernels/vulkan/instance.h"

namespace normserve::vulkan {
namespace {

namespace fs = std::filesystem;

std::optional<std::string> Environment(const char* name) {
  const char* value = std::getenv(name);
  if (value == nullptr) return std::nullopt;
  return std::string(value);
}

DeviceNode InspectNode(const std::string& path) {
  DeviceNode node;
  node.path = path;
  node.accessible = access(path.c_str(), R_OK | W_OK) == 0;
  struct stat status = {};
  if (stat(path.c_str(), &status) != 0) return node;
  node.group_id = status.st_gid;
  node.mode = status.st_mode & 0777;
  const struct group* group = getgrgid(status.st_gid);
  node.group = group == nullptr ? absl::StrCat(status.st_gid) : group->gr_name;
  return node;
}

// The entries of `folder` whose names begin with `prefix` and go on with a digit, or are `also`.
std::vector<DeviceNode> InspectNodes(const char* folder, const std::string& prefix, const std::string& also = "") {
  std::vector<std::string> paths;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    const bool numbered = absl::StartsWith(name, prefix) && name.size() > prefix.size() && name[prefix.size()] >= '0' &&
                          name[prefix.size()] <= '9';
    if (numbered || name == also) paths.push_back(entry->path().string());
  }
  std::sort(paths.begin(), paths.end());
  std::vector<DeviceNode> nodes;
  for (const std::string& path : paths) nodes.push_back(InspectNode(path));
  return nodes;
}

std::string FirstWord(const fs::path& path) {
  std::ifstream in(path);
  std::string word;
  in >> word;
  return word;
}

// Vendors of PCI class 03, display controllers.
std::vector<std::string> GpuVendors() {
  std::vector<std::string> vendors;
  std::error_code error;
  for (fs::directory_iterator entry("/sys/bus/pci/devices", error), end; !error && entry != end;
       entry.increment(error)) {
    if (!absl::StartsWith(FirstWord(entry->path() / "class"), "0x03")) continue;
    std::string vendor = FirstWord(entry->path() / "vendor");
    if (std::find(vendors.begin(), vendors.end(), vendor) == vendors.end()) vendors.push_back(std::move(vendor));
  }
  std::sort(vendors.begin(), vendors.end());
  return vendors;
}

ContainerHints InspectContainer() {
  std::error_code error;
  for (const char* marker : {"/.dockerenv", "/run/.containerenv"}) {
    if (fs::exists(marker, error)) return {true, absl::StrCat(marker, " exists")};
  }
  for (const char* variable : {"container", "KUBERNETES_SERVICE_HOST"}) {
    if (Environment(variable).has_value()) return {true, absl::StrCat("environment variable ", variable, " is set")};
  }
  return {};
}

void InspectVulkan(SystemSnapshot& system) {
  auto version = LoaderVersion();
  system.loader_status = version.status();
  if (!version.ok()) {
    system.device_status = version.status();
    return;
  }
  system.loader_version = *version;
  auto instance = Instance::Create();
  if (!instance.ok()) {
    system.device_status = instance.status();
    return;
  }
  auto devices = Enumerate(**instance);
  system.device_status = devices.status();
  if (devices.ok()) system.devices = *std::move(devices);
}

}  // namespace

SystemSnapshot InspectSystem() {
  SystemSnapshot system;
  InspectVulkan(system);
  system.icd_files = FindIcdFiles(IcdSearchPath(Environment));
  for (const char* variable : {"VK_DRIVER_FILES", "VK_ICD_FILENAMES"}) {
    if (!Environment(variable).value_or("").empty()) {
      system.icd_override_variable = variable;
      break;
    }
  }
  system.render_nodes = InspectNodes("/dev/dri", "renderD");
  system.nvidia_nodes = InspectNodes("/dev", "nvidia", "nvidiactl");
  system.gpu_vendors = GpuVendors();
  system.user_id = geteuid();
  const struct passwd* user = getpwuid(geteuid());
  system.user = user == nullptr ? absl::StrCat(system.user_id) : user->pw_name;
  system.container = InspectContainer();
  return system;
}

}  // namespace normserve::vulkan
