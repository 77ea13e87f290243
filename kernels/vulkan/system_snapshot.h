// What a machine has for Vulkan, as plain data: gathered once, judged by advice.h.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "kernels/vulkan/device_selection.h"
#include "kernels/vulkan/icd_file.h"

namespace normserve::vulkan {

// A node of the kernel's graphics driver, such as /dev/dri/renderD128.
struct DeviceNode {
  std::string path;
  bool accessible = false;  // the current user may read and write it
  std::string group;        // name of the owning group, or its number where it has no name
  unsigned group_id = 0;
  unsigned mode = 0;  // permission bits, octal 0660 and the like
};

// Where the program runs.
struct ContainerHints {
  bool in_container = false;
  std::string evidence;  // "/.dockerenv exists"
};

struct SystemSnapshot {
  // The loader library: its version, or why there is none.
  absl::Status loader_status;
  std::string loader_version;

  std::vector<IcdFile> icd_files;
  // Set if VK_DRIVER_FILES or VK_ICD_FILENAMES replaces the loader's usual search: its name.
  std::string icd_override_variable;

  // What the loader lists; why it lists nothing.
  absl::Status device_status;
  std::vector<DeviceSnapshot> devices;

  std::vector<DeviceNode> render_nodes;  // /dev/dri/renderD*
  std::vector<DeviceNode> nvidia_nodes;  // /dev/nvidia*
  // PCI vendors of the machine's display controllers: "0x1002" AMD, "0x8086" Intel, "0x10de" NVIDIA.
  std::vector<std::string> gpu_vendors;

  std::string user;  // name or number of the current user
  unsigned user_id = 0;
  ContainerHints container;
};

// Looks at this machine. Starts the Vulkan loader; needs no device, no driver and no loader.
SystemSnapshot InspectSystem();

}  // namespace normserve::vulkan
