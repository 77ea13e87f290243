// The driver manifests that the Vulkan loader would read.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace normserve::vulkan {

// One manifest (ICD JSON file) and the driver library that it names.
struct IcdFile {
  std::string path;
  std::string library_path;  // as the manifest says it; a bare name is looked up by the dynamic linker
  bool loadable = false;     // the library can be opened
  std::string problem;       // why not, or why the manifest cannot be read
};

// Reads one environment variable; nothing if it is not set.
using ReadEnvironment = std::function<std::optional<std::string>(const char* name)>;

// Where the loader looks for manifests, in its order: VK_DRIVER_FILES (or VK_ICD_FILENAMES, its older name) in place
// of everything else; otherwise VK_ADD_DRIVER_FILES, the XDG folders, /etc, /usr/local/share and /usr/share. Entries
// are files or folders that may not exist. (Vulkan-Loader, LoaderInterfaceArchitecture.)
std::vector<std::string> IcdSearchPath(const ReadEnvironment& environment);

// The manifests found along `search_path`, each with its library tried.
std::vector<IcdFile> FindIcdFiles(const std::vector<std::string>& search_path);

}  // namespace normserve::vulkan
