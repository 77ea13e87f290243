#include "kernels/vulkan/icd_file.h"

#include <dlfcn.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <system_error>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace normserve::vulkan {
namespace {

constexpr char kFolder[] = "/vulkan/icd.d";

void AddPaths(absl::string_view list, absl::string_view suffix, std::vector<std::string>& paths) {
  for (absl::string_view path : absl::StrSplit(list, ':', absl::SkipEmpty())) {
    std::string full = absl::StrCat(path, suffix);
    if (std::find(paths.begin(), paths.end(), full) == paths.end()) paths.push_back(std::move(full));
  }
}

// A library beside its manifest, in the linker's search path, or anywhere (Vulkan-Loader, LoaderDriverInterface).
std::string ResolveLibrary(const std::string& manifest, const std::string& library) {
  if (!absl::StrContains(library, '/') || library.front() == '/') return library;
  return (std::filesystem::path(manifest).parent_path() / library).string();
}

IcdFile ReadIcdFile(const std::string& path) {
  IcdFile file;
  file.path = path;
  std::ifstream in(path);
  if (!in) {
    file.problem = "the manifest cannot be opened";
    return file;
  }
  const nlohmann::json json = nlohmann::json::parse(in, nullptr, /*allow_exceptions=*/false);
  const auto pointer = nlohmann::json::json_pointer("/ICD/library_path");
  if (json.is_discarded() || !json.contains(pointer) || !json.at(pointer).is_string()) {
    file.problem = "the manifest is no JSON with ICD.library_path";
    return file;
  }
  file.library_path = json.at(pointer).get<std::string>();
  // As the loader does it; the driver's own code does not run before it is asked for a function.
  void* library = dlopen(ResolveLibrary(path, file.library_path).c_str(), RTLD_LAZY | RTLD_LOCAL);
  if (library == nullptr) {
    const char* error = dlerror();
    file.problem = error == nullptr ? "the library cannot be opened" : error;
    return file;
  }
  dlclose(library);
  file.loadable = true;
  return file;
}

}  // namespace

std::vector<std::string> IcdSearchPath(const ReadEnvironment& environment) {
  std::vector<std::string> paths;
  for (const char* override_variable : {"VK_DRIVER_FILES", "VK_ICD_FILENAMES"}) {
    if (const auto list = environment(override_variable); list.has_value() && !list->empty()) {
      AddPaths(*list, "", paths);
      return paths;
    }
  }
  AddPaths(environment("VK_ADD_DRIVER_FILES").value_or(""), "", paths);
  const auto home = environment("HOME");
  const auto in_home = [&home](const char* folder) { return home.has_value() ? absl::StrCat(*home, folder) : ""; };
  AddPaths(environment("XDG_CONFIG_HOME").value_or(in_home("/.config")), kFolder, paths);
  AddPaths(environment("XDG_CONFIG_DIRS").value_or("/etc/xdg"), kFolder, paths);
  AddPaths("/etc", kFolder, paths);
  AddPaths(environment("XDG_DATA_HOME").value_or(in_home("/.local/share")), kFolder, paths);
  AddPaths(environment("XDG_DATA_DIRS").value_or("/usr/local/share:/usr/share"), kFolder, paths);
  return paths;
}

std::vector<IcdFile> FindIcdFiles(const std::vector<std::string>& search_path) {
  namespace fs = std::filesystem;
  std::vector<IcdFile> files;
  for (const std::string& path : search_path) {
    std::error_code error;
    if (fs::is_regular_file(path, error)) {
      files.push_back(ReadIcdFile(path));
      continue;
    }
    std::vector<std::string> in_folder;
    for (fs::directory_iterator entry(path, error), end; !error && entry != end; entry.increment(error)) {
      if (entry->path().extension() == ".json") in_folder.push_back(entry->path().string());
    }
    std::sort(in_folder.begin(), in_folder.end());
    for (const std::string& file : in_folder) files.push_back(ReadIcdFile(file));
  }
  return files;
}

}  // namespace normserve::vulkan
