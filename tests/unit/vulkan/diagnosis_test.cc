// What keeps a machine from computing on its GPU is named, and so is what to do.
#include "kernels/vulkan/diagnosis.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace normserve::vulkan {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

DeviceSnapshot Device(const std::string& name, DeviceType type) {
  DeviceSnapshot device;
  device.name = name;
  device.type = type;
  device.api_version_major = 1;
  device.api_version_minor = 3;
  device.compute_queue_family = 0;
  device.timeline_semaphore = true;
  return device;
}

// A machine with an AMD GPU where all is well.
SystemSnapshot GoodMachine() {
  SystemSnapshot system;
  system.loader_version = "1.3.239";
  system.icd_files = {{"/usr/share/vulkan/icd.d/radeon_icd.x86_64.json", "libvulkan_radeon.so", true, ""},
                      {"/usr/share/vulkan/icd.d/lvp_icd.x86_64.json", "libvulkan_lvp.so", true, ""}};
  system.devices = {Device("AMD Radeon RX 7900", DeviceType::kDiscreteGpu), Device("llvmpipe", DeviceType::kCpu)};
  system.render_nodes = {{"/dev/dri/renderD128", true, "render", 105, 0660}};
  system.gpu_vendors = {"0x1002"};
  system.user = "alice";
  system.user_id = 1000;
  return system;
}

// The same without the GPU's device.
SystemSnapshot CpuOnly() {
  SystemSnapshot system = GoodMachine();
  system.devices.erase(system.devices.begin());
  return system;
}

TEST(AdviseTest, AMachineWhereAllIsWellGetsNone) { EXPECT_TRUE(Advise(GoodMachine()).empty()); }

TEST(AdviseTest, EachProblemIsNamedWithWhatToDo) {
  struct Case {
    const char* why;
    std::function<SystemSnapshot()> machine;
    Severity severity;
    std::string what, to_do;
  };
  const Case cases[] = {
      {"no loader",
       [] {
         SystemSnapshot s;
         s.loader_status = s.device_status = absl::FailedPreconditionError("no loader");
         return s;
       },
       Severity::kError, "no Vulkan loader", "libvulkan1"},
      {"no driver",
       [] {
         SystemSnapshot s = GoodMachine();
         s.icd_files.clear();
         s.devices.clear();
         return s;
       },
       Severity::kError, "no manifest", "mesa-vulkan-drivers"},
      {"the override names nothing",
       [] {
         SystemSnapshot s = GoodMachine();
         s.icd_files.clear();
         s.devices.clear();
         s.icd_override_variable = "VK_ICD_FILENAMES";
         return s;
       },
       Severity::kError, "no manifest", "VK_ICD_FILENAMES"},
      {"a driver's library is gone",
       [] {
         SystemSnapshot s = GoodMachine();
         s.icd_files[0].loadable = false;
         s.icd_files[0].problem = "libvulkan_radeon.so: cannot open shared object file";
         return s;
       },
       Severity::kWarning, "cannot open shared object file", "package"},
      {"drivers without a device",
       [] {
         SystemSnapshot s = GoodMachine();
         s.devices.clear();
         return s;
       },
       Severity::kError, "none of them offers a device", "mesa-vulkan-drivers"},
      {"an old driver",
       [] {
         SystemSnapshot s = GoodMachine();
         s.devices[0].api_version_minor = 1;
         return s;
       },
       Severity::kWarning, "Vulkan 1.1, needs 1.2", "newer driver"},
      {"no right to the render node",
       [] {
         SystemSnapshot s = CpuOnly();
         s.render_nodes[0].accessible = false;
         return s;
       },
       Severity::kWarning, "user alice may not open /dev/dri/renderD128 (group render, mode 0660)",
       "usermod -aG render alice"},
      {"no right to the render node, in a container",
       [] {
         SystemSnapshot s = CpuOnly();
         s.render_nodes[0].accessible = false;
         s.container.in_container = true;
         return s;
       },
       Severity::kWarning, "may not open", "--group-add 105"},
      {"a container without the render node",
       [] {
         SystemSnapshot s = CpuOnly();
         s.render_nodes.clear();
         s.container.in_container = true;
         return s;
       },
       Severity::kWarning, "this container has no /dev/dri/renderD*", "--device /dev/dri"},
      {"no kernel driver",
       [] {
         SystemSnapshot s = CpuOnly();
         s.render_nodes.clear();
         return s;
       },
       Severity::kWarning, "its kernel driver made no /dev/dri/renderD*", "firmware-amd-graphics"},
      {"NVIDIA in a container without its devices",
       [] {
         SystemSnapshot s = CpuOnly();
         s.render_nodes.clear();
         s.gpu_vendors = {"0x10de"};
         s.container.in_container = true;
         return s;
       },
       Severity::kWarning, "no /dev/nvidia0", "--gpus all"},
      {"NVIDIA in a container without the graphics capability",
       [] {
         SystemSnapshot s = CpuOnly();
         s.gpu_vendors = {"0x10de"};
         s.nvidia_nodes = {{"/dev/nvidia0", true, "root", 0, 0666}};
         s.container.in_container = true;
         return s;
       },
       Severity::kWarning, "not its Vulkan driver", "NVIDIA_DRIVER_CAPABILITIES=compute,graphics,utility"},
      {"NVIDIA without its Vulkan package",
       [] {
         SystemSnapshot s = CpuOnly();
         s.gpu_vendors = {"0x10de"};
         s.nvidia_nodes = {{"/dev/nvidia0", true, "root", 0, 0666}};
         return s;
       },
       Severity::kWarning, "not its Vulkan driver", "nvidia-vulkan-icd"},
      {"NVIDIA's Vulkan driver lacks libraries",
       [] {
         SystemSnapshot s = CpuOnly();
         s.gpu_vendors = {"0x10de"};
         s.nvidia_nodes = {{"/dev/nvidia0", true, "root", 0, 0666}};
         s.icd_files.push_back({"/etc/vulkan/icd.d/nvidia_icd.json", "libGLX_nvidia.so.0", true, ""});
         return s;
       },
       Severity::kWarning, "offers no device", "libEGL_nvidia.so.0"},
      {"only a CPU driver though there is a GPU",
       [] {
         SystemSnapshot s = CpuOnly();
         s.render_nodes[0].accessible = false;
         return s;
       },
       Severity::kWarning, "only CPU drivers", "other findings"},
      {"no GPU at all",
       [] {
         SystemSnapshot s = CpuOnly();
         s.gpu_vendors.clear();
         s.render_nodes.clear();
         return s;
       },
       Severity::kInfo, "no GPU was found", ""},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.why);
    EXPECT_THAT(Advise(c.machine()),
                testing::Contains(testing::AllOf(testing::Field(&Finding::severity, c.severity),
                                                 testing::Field(&Finding::what, HasSubstr(c.what)),
                                                 testing::Field(&Finding::what_to_do, HasSubstr(c.to_do)))));
  }
}

TEST(AdviseTest, TheWorstComesFirst) {
  SystemSnapshot system = CpuOnly();
  system.devices[0].api_version_minor = 0;
  system.icd_override_variable = "VK_DRIVER_FILES";
  system.render_nodes[0].accessible = false;
  std::vector<Severity> severities;
  for (const Finding& finding : Advise(system)) severities.push_back(finding.severity);
  EXPECT_THAT(severities, ElementsAre(Severity::kError, Severity::kWarning, Severity::kInfo));
}

std::vector<std::string> SearchPath(const std::map<std::string, std::string>& variables) {
  return IcdSearchPath([&](const char* name) -> std::optional<std::string> {
    const auto found = variables.find(name);
    if (found == variables.end()) return std::nullopt;
    return found->second;
  });
}

TEST(IcdSearchPathTest, FollowsTheLoadersOrder) {
  EXPECT_THAT(
      SearchPath({{"HOME", "/h/a"}, {"VK_ADD_DRIVER_FILES", "/x.json"}}),
      ElementsAre("/x.json", "/h/a/.config/vulkan/icd.d", "/etc/xdg/vulkan/icd.d", "/etc/vulkan/icd.d",
                  "/h/a/.local/share/vulkan/icd.d", "/usr/local/share/vulkan/icd.d", "/usr/share/vulkan/icd.d"));
  EXPECT_THAT(SearchPath({{"VK_ICD_FILENAMES", "/a.json:/b.json"}, {"HOME", "/h/a"}}),
              ElementsAre("/a.json", "/b.json"));
  EXPECT_THAT(SearchPath({{"VK_ICD_FILENAMES", "/a.json"}, {"VK_DRIVER_FILES", "/d"}}), ElementsAre("/d"));
}

TEST(FindIcdFilesTest, ABadManifestAndAMissingLibraryAreReported) {
  const std::filesystem::path folder = std::filesystem::path(testing::TempDir()) / "normserve_icd_test";
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "a_broken.json") << "{";
  std::ofstream(folder / "b_gone.json") << R"({"ICD": {"library_path": "./libnowhere.so"}})";
  std::ofstream(folder / "c_libc.json") << R"({"ICD": {"library_path": "libc.so.6"}})";
  std::ofstream(folder / "readme.txt") << "no manifest";
  const std::vector<IcdFile> files = FindIcdFiles({folder.string(), "/nonexistent"});
  ASSERT_EQ(files.size(), 3u);
  EXPECT_FALSE(files[0].loadable);
  EXPECT_THAT(files[0].problem, HasSubstr("JSON"));
  EXPECT_FALSE(files[1].loadable);
  EXPECT_THAT(files[1].problem, HasSubstr((folder / "libnowhere.so").filename().string()));
  EXPECT_TRUE(files[2].loadable) << files[2].problem;
  std::filesystem::remove_all(folder);
}

TEST(DiagnoseTest, FindsTheDriversOfThisMachineAndChoosesOne) {
  const Diagnosis diagnosis = Diagnose();
  EXPECT_FALSE(diagnosis.system.loader_version.empty());
  ASSERT_TRUE(diagnosis.selection.ok()) << diagnosis.selection.status();
  EXPECT_EQ(diagnosis.selection->reasons.size(), diagnosis.system.devices.size());
  ASSERT_FALSE(diagnosis.system.icd_files.empty());
  for (const IcdFile& file : diagnosis.system.icd_files) EXPECT_TRUE(file.loadable) << file.path << file.problem;
  for (const Finding& finding : diagnosis.findings) EXPECT_NE(finding.severity, Severity::kError) << finding.what;
}

}  // namespace
}  // namespace normserve::vulkan
