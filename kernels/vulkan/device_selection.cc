#include "kernels/vulkan/device_selection.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/error_reason.h"

namespace normserve::vulkan {
namespace {

constexpr char kInstallAdvice[] =
    "install a driver (Debian, Ubuntu: apt-get install mesa-vulkan-drivers, which also computes without a GPU); "
    "`normctl "
    "doctor` says more";

// The lower the better.
int Rank(DeviceType type) {
  switch (type) {
    case DeviceType::kDiscreteGpu:
      return 0;
    case DeviceType::kIntegratedGpu:
      return 1;
    case DeviceType::kVirtualGpu:
      return 2;
    case DeviceType::kCpu:
      return 3;
    case DeviceType::kOther:
      return 4;
  }
  return 4;
}

bool IsGpu(DeviceType type) { return Rank(type) <= Rank(DeviceType::kVirtualGpu); }

// "0: NVIDIA RTX 4090 (discrete GPU, driver NVIDIA 550.1, UUID 00…)"
std::string Describe(const DeviceSnapshot& device) {
  return absl::StrCat(device.index, ": ", device.name, " (", DeviceTypeName(device.type), ", driver ",
                      device.driver_name, device.driver_info.empty() ? "" : " ", device.driver_info, ", UUID ",
                      device.uuid, ")");
}

// One line a device, after a message.
std::string DescribeAll(absl::Span<const DeviceSnapshot> devices, const std::vector<std::string>& reasons) {
  std::string text;
  for (size_t i = 0; i < devices.size(); ++i) {
    absl::StrAppend(&text, "\n  ", Describe(devices[i]), reasons[i].empty() ? "" : ": ", reasons[i]);
  }
  return text;
}

bool ContainsIgnoringCase(const std::string& text, const std::string& lower_part) {
  return absl::StrContains(absl::AsciiStrToLower(text), lower_part);
}

// Which devices `wanted` names.
std::vector<bool> MatchDevices(absl::Span<const DeviceSnapshot> devices, const std::string& wanted) {
  std::vector<bool> matches(devices.size(), wanted.empty());
  if (wanted.empty()) return matches;

  uint64_t index = 0;
  // A number beyond the list may still be a part of a name, such as 4090.
  if (absl::SimpleAtoi(wanted, &index) && index < devices.size()) {
    matches[index] = true;
    return matches;
  }
  const std::string lower = absl::AsciiStrToLower(wanted);
  std::string hex = lower;
  hex.erase(std::remove(hex.begin(), hex.end(), '-'), hex.end());
  bool any_uuid = false;
  for (size_t i = 0; i < devices.size(); ++i) {
    matches[i] = devices[i].uuid == hex;
    any_uuid = any_uuid || matches[i];
  }
  if (any_uuid) return matches;
  for (size_t i = 0; i < devices.size(); ++i) {
    matches[i] = ContainsIgnoringCase(devices[i].name, lower) || ContainsIgnoringCase(devices[i].driver_name, lower);
  }
  return matches;
}

}  // namespace

const char* DeviceTypeName(DeviceType type) {
  switch (type) {
    case DeviceType::kDiscreteGpu:
      return "discrete GPU";
    case DeviceType::kIntegratedGpu:
      return "integrated GPU";
    case DeviceType::kVirtualGpu:
      return "virtual GPU";
    case DeviceType::kCpu:
      return "CPU";
    case DeviceType::kOther:
      return "other";
  }
  return "other";
}

std::vector<std::string> MissingRequirements(const DeviceSnapshot& device) {
  std::vector<std::string> missing;
  if (device.api_version_major < 1 || (device.api_version_major == 1 && device.api_version_minor < 2)) {
    missing.push_back(absl::StrCat("Vulkan ", device.api_version_major, ".", device.api_version_minor,
                                   ", needs 1.2: a newer driver may have it"));
  }
  if (!device.compute_queue_family.has_value()) missing.push_back("no queue that computes");
  if (!device.timeline_semaphore) missing.push_back("no timeline semaphores");
  return missing;
}

absl::StatusOr<Selection> SelectDevice(absl::Span<const DeviceSnapshot> devices, const SelectionOptions& options) {
  const auto error = [](absl::StatusCode code, const std::string& message) {
    return MakeError(code, ErrorReason::kInvalidField, message, {{"field", "device"}});
  };
  if (devices.empty()) {
    return error(absl::StatusCode::kFailedPrecondition, absl::StrCat("no Vulkan device: ", kInstallAdvice));
  }

  const std::vector<bool> named = MatchDevices(devices, options.device);
  Selection selection;
  selection.reasons.resize(devices.size());
  if (std::count(named.begin(), named.end(), true) == 0) {
    return error(absl::StatusCode::kNotFound,
                 absl::StrCat("device \"", options.device,
                              "\" is none of those on this machine; name one by its index, "
                              "UUID or a part of its name:",
                              DescribeAll(devices, selection.reasons)));
  }

  std::optional<size_t> best;
  for (size_t i = 0; i < devices.size(); ++i) {
    const std::vector<std::string> missing = MissingRequirements(devices[i]);
    if (!missing.empty()) {
      selection.reasons[i] = absl::StrCat("cannot be used: ", absl::StrJoin(missing, "; "));
    } else if (!named[i]) {
      selection.reasons[i] = absl::StrCat("not chosen: \"", options.device, "\" names another");
    } else if (options.require_gpu && !IsGpu(devices[i].type)) {
      selection.reasons[i] =
          absl::StrCat("not chosen: no GPU (", DeviceTypeName(devices[i].type), "), and a GPU is required");
    } else if (!best.has_value() || Rank(devices[i].type) < Rank(devices[*best].type)) {
      best = i;
    }
  }
  if (!best.has_value()) {
    const std::string subject = options.device.empty() ? std::string("no Vulkan device of this machine")
                                                       : absl::StrCat("device \"", options.device, "\"");
    return error(absl::StatusCode::kFailedPrecondition,
                 absl::StrCat(subject, options.device.empty() ? " can be used: " : " cannot be used: ", kInstallAdvice,
                              ". There is", DescribeAll(devices, selection.reasons)));
  }

  selection.chosen = *best;
  const DeviceSnapshot& chosen = devices[*best];
  for (size_t i = 0; i < devices.size(); ++i) {
    if (!selection.reasons[i].empty()) continue;
    if (i == *best) {
      selection.reasons[i] = options.device.empty()
                                 ? absl::StrCat("chosen: the best device (", DeviceTypeName(chosen.type), ")")
                                 : absl::StrCat("chosen: named by \"", options.device, "\"");
    } else if (Rank(devices[i].type) > Rank(chosen.type)) {
      selection.reasons[i] =
          absl::StrCat("not chosen: ", DeviceTypeName(chosen.type), " goes before ", DeviceTypeName(devices[i].type));
    } else {
      selection.reasons[i] = absl::StrCat("not chosen: device ", chosen.index, " of the same kind is listed first");
    }
  }
  if (chosen.type == DeviceType::kCpu) {
    selection.warning = absl::StrCat("computing on the processor: \"", chosen.name,
                                     "\" is a CPU driver; `normctl doctor` says why no GPU is used");
  }
  return selection;
}

}  // namespace normserve::vulkan
