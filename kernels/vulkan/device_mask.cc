#include "kernels/vulkan/device_mask.h"

#include <limits>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "kernels/error_reason.h"

namespace normserve::vulkan {
namespace {

constexpr char kNames[] =
    "max_storage_buffer_range=BYTES, max_allocation_size=BYTES, max_workgroup_invocations=N, max_workgroup_count=N, "
    "max_shared_memory_bytes=BYTES, staging, no_push_descriptors, no_float_controls";

absl::Status MaskError(absl::string_view item, absl::string_view problem) {
  return MakeError(
      absl::StatusCode::kInvalidArgument, ErrorReason::kInvalidField,
      absl::StrCat("device mask: \"", item, "\" ", problem, "; a mask is a list of ", kNames, ", separated by commas"),
      {{"field", "device_mask"}});
}

// Sets `limit` if `value` is a whole number that fits and is at least 1.
template <typename Number>
bool SetLimit(absl::string_view value, std::optional<Number>& limit) {
  uint64_t number = 0;
  if (!absl::SimpleAtoi(value, &number) || number == 0 || number > std::numeric_limits<Number>::max()) return false;
  limit = static_cast<Number>(number);
  return true;
}

}  // namespace

absl::StatusOr<DeviceMask> ParseDeviceMask(absl::string_view text) {
  DeviceMask mask;
  std::set<std::string> seen;
  if (absl::StripAsciiWhitespace(text).empty()) return mask;
  for (absl::string_view part : absl::StrSplit(text, ',')) {
    const absl::string_view item = absl::StripAsciiWhitespace(part);
    const std::pair<absl::string_view, absl::string_view> split = absl::StrSplit(item, absl::MaxSplits('=', 1));
    const auto [name, value] = split;
    if (!seen.insert(std::string(name)).second) return MaskError(item, "is named twice");

    bool valid = false;
    if (name == "staging") {
      mask.no_host_visible_device_memory = valid = item == name;
    } else if (name == "no_push_descriptors") {
      mask.no_push_descriptors = valid = item == name;
    } else if (name == "no_float_controls") {
      mask.no_float_controls = valid = item == name;
    } else if (name == "max_storage_buffer_range") {
      valid = SetLimit(value, mask.max_storage_buffer_range);
    } else if (name == "max_allocation_size") {
      valid = SetLimit(value, mask.max_allocation_size);
    } else if (name == "max_workgroup_invocations") {
      valid = SetLimit(value, mask.max_workgroup_invocations);
    } else if (name == "max_workgroup_count") {
      valid = SetLimit(value, mask.max_workgroup_count);
    } else if (name == "max_shared_memory_bytes") {
      valid = SetLimit(value, mask.max_shared_memory_bytes);
    } else {
      return MaskError(item, "is unknown");
    }
    if (!valid) return MaskError(item, "has the wrong value");
  }
  return mask;
}

std::string DeviceMaskText(const DeviceMask& mask) {
  std::vector<std::string> items;
  const auto add = [&items](const char* name, const auto& limit) {
    if (limit.has_value()) items.push_back(absl::StrCat(name, "=", *limit));
  };
  add("max_storage_buffer_range", mask.max_storage_buffer_range);
  add("max_allocation_size", mask.max_allocation_size);
  add("max_workgroup_invocations", mask.max_workgroup_invocations);
  add("max_workgroup_count", mask.max_workgroup_count);
  add("max_shared_memory_bytes", mask.max_shared_memory_bytes);
  if (mask.no_host_visible_device_memory) items.push_back("staging");
  if (mask.no_push_descriptors) items.push_back("no_push_descriptors");
  if (mask.no_float_controls) items.push_back("no_float_controls");
  return absl::StrJoin(items, ",");
}

}  // namespace normserve::vulkan
