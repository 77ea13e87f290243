// InspectMachine of a normctl that was built with the kernels: what kernels/vulkan/diagnosis.h found out, laid out.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/cli/doctor.h"
#include "kernels/vulkan/diagnosis.h"

namespace normserve::cli {
namespace {

using vulkan::DeviceNode;
using vulkan::DeviceSnapshot;
using vulkan::Diagnosis;
using vulkan::Finding;
using vulkan::IcdFile;
using vulkan::SystemSnapshot;

constexpr int kWidth = 78;

// `text` in lines of kWidth at most, each after `indent`; the first after `first` instead. Words are not cut.
std::string Wrap(const std::string& first, const std::string& indent, const std::string& text) {
  std::string wrapped, line = first;
  bool empty = true;
  size_t at = 0;
  while (at < text.size()) {
    const size_t end = std::min(text.find(' ', at), text.size());
    const std::string word = text.substr(at, end - at);
    at = end + 1;
    if (!empty && line.size() + 1 + word.size() > kWidth) {
      absl::StrAppend(&wrapped, line, "\n");
      line = indent;
      empty = true;
    }
    absl::StrAppend(&line, empty ? "" : " ", word);
    empty = false;
  }
  return absl::StrCat(wrapped, line, "\n");
}

std::string DriversText(const SystemSnapshot& system) {
  std::string text = "Vulkan loader\n";
  if (system.loader_status.ok()) {
    absl::StrAppend(&text, "  version ", system.loader_version, "\n");
  } else {
    text += Wrap("  none: ", "    ", std::string(system.loader_status.message()));
  }
  absl::StrAppend(&text, "\nDrivers that the loader reads (ICD files)\n");
  if (!system.icd_override_variable.empty()) {
    absl::StrAppend(&text, "  only those of the environment variable ", system.icd_override_variable, "\n");
  }
  if (system.icd_files.empty()) text += "  none\n";
  for (const IcdFile& file : system.icd_files) {
    absl::StrAppend(&text, file.loadable ? "  ok  " : "  NO  ", file.path, "\n");
    if (!file.library_path.empty()) absl::StrAppend(&text, "        library ", file.library_path, "\n");
    if (!file.problem.empty()) text += Wrap("        ", "        ", file.problem);
  }
  return text;
}

std::string DevicesText(const Diagnosis& diagnosis) {
  const SystemSnapshot& system = diagnosis.system;
  std::string text = "\nDevices that they offer (*: a server started here computes on it)\n";
  if (system.devices.empty()) {
    text += Wrap("  none", "    ",
                 system.device_status.ok() ? "" : absl::StrCat(": ", std::string(system.device_status.message())));
  }
  for (size_t i = 0; i < system.devices.size(); ++i) {
    const DeviceSnapshot& device = system.devices[i];
    const bool chosen = diagnosis.selection.ok() && diagnosis.selection->chosen == i;
    absl::StrAppendFormat(&text, "%s %d  %s\n       %s, Vulkan %d.%d, driver %s %s\n       uuid %s\n",
                          chosen ? " *" : "  ", device.index, device.name, vulkan::DeviceTypeName(device.type),
                          device.api_version_major, device.api_version_minor, device.driver_name, device.driver_info,
                          device.uuid);
    const std::string reason = diagnosis.selection.ok() && i < diagnosis.selection->reasons.size()
                                   ? diagnosis.selection->reasons[i]
                                   : absl::StrJoin(vulkan::MissingRequirements(device), "; ");
    if (!reason.empty()) text += Wrap("       ", "       ", reason);
  }
  if (!diagnosis.selection.ok() && !system.devices.empty()) {
    text += Wrap("  No device can be used: ", "    ", std::string(diagnosis.selection.status().message()));
  }
  return text;
}

std::string NodesText(const SystemSnapshot& system) {
  std::string text = "\nThe kernel's graphics devices\n";
  std::vector<DeviceNode> nodes = system.render_nodes;
  nodes.insert(nodes.end(), system.nvidia_nodes.begin(), system.nvidia_nodes.end());
  if (nodes.empty()) text += "  no /dev/dri/renderD* and no /dev/nvidia*\n";
  for (const DeviceNode& node : nodes) {
    absl::StrAppendFormat(&text, "  %s  %s  mode %04o, group %s (%d)\n", node.accessible ? "ok" : "NO", node.path,
                          node.mode, node.group, node.group_id);
  }
  if (!system.gpu_vendors.empty()) {
    absl::StrAppend(&text, "  PCI vendors of display controllers: ", absl::StrJoin(system.gpu_vendors, ", "), "\n");
  }
  absl::StrAppendFormat(
      &text, "  user %s (%d)%s\n", system.user, system.user_id,
      system.container.in_container ? absl::StrCat(", in a container: ", system.container.evidence) : std::string());
  return text;
}

std::string FindingsText(const std::vector<Finding>& findings) {
  std::string text = "\nWhat to do\n";
  if (findings.empty()) text += "  nothing\n";
  for (const Finding& finding : findings) {
    text += Wrap(absl::StrCat("  ", vulkan::SeverityName(finding.severity), ": "), "    ", finding.what);
    if (!finding.what_to_do.empty()) text += Wrap("    -> ", "       ", finding.what_to_do);
  }
  return text;
}

nlohmann::ordered_json NodeJson(const DeviceNode& node) {
  return {{"path", node.path}, {"accessible", node.accessible}, {"group", node.group}, {"mode", node.mode}};
}

nlohmann::ordered_json Json(const Diagnosis& diagnosis) {
  const SystemSnapshot& system = diagnosis.system;
  nlohmann::ordered_json json = {{"inspected", true},
                                 {"loader_version", system.loader_version},
                                 {"drivers", nlohmann::ordered_json::array()},
                                 {"devices", nlohmann::ordered_json::array()},
                                 {"nodes", nlohmann::ordered_json::array()},
                                 {"in_container", system.container.in_container},
                                 {"findings", nlohmann::ordered_json::array()}};
  for (const IcdFile& file : system.icd_files) {
    json["drivers"].push_back(
        {{"path", file.path}, {"library", file.library_path}, {"loadable", file.loadable}, {"problem", file.problem}});
  }
  for (size_t i = 0; i < system.devices.size(); ++i) {
    const DeviceSnapshot& device = system.devices[i];
    const bool selected = diagnosis.selection.ok();
    json["devices"].push_back(
        {{"index", device.index},
         {"name", device.name},
         {"uuid", device.uuid},
         {"type", vulkan::DeviceTypeName(device.type)},
         {"driver", absl::StrCat(device.driver_name, " ", device.driver_info)},
         {"chosen", selected && diagnosis.selection->chosen == i},
         {"reason", selected && i < diagnosis.selection->reasons.size() ? diagnosis.selection->reasons[i] : ""}});
  }
  for (const DeviceNode& node : system.render_nodes) json["nodes"].push_back(NodeJson(node));
  for (const DeviceNode& node : system.nvidia_nodes) json["nodes"].push_back(NodeJson(node));
  for (const Finding& finding : diagnosis.findings) {
    json["findings"].push_back({{"severity", vulkan::SeverityName(finding.severity)},
                                {"what", finding.what},
                                {"what_to_do", finding.what_to_do}});
  }
  return json;
}

}  // namespace

MachineReport InspectMachine() {
  const Diagnosis diagnosis = vulkan::Diagnose();
  return {.text = absl::StrCat(DriversText(diagnosis.system), DevicesText(diagnosis), NodesText(diagnosis.system),
                               FindingsText(diagnosis.findings)),
          .json = Json(diagnosis),
          .usable = diagnosis.selection.ok()};
}

}  // namespace normserve::cli
