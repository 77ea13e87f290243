// What GetServerInfo tells, beside the sessions: given by main, which alone knows the devices.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"

namespace normserve {

// One Vulkan physical device. Texts as in normserve.v1.Device.
struct DeviceDescription {
  std::string name;
  std::string uuid;         // 32 hexadecimal digits
  std::string type;         // "discrete GPU", "integrated GPU", "virtual GPU", "CPU" or "other"
  std::string driver;       // name and version
  std::string api_version;  // "1.3.239"
  bool in_use = false;
  std::string reason;  // why it was chosen or not
};

// What the device in use was found to do, as of now.
struct DeviceTests {
  enum class Result { kPending, kPassed, kFailed };
  std::vector<std::pair<std::string, Result>> variants;
  std::optional<bool> keeps_subnormals;  // nothing: not known yet
};

// Constant while the server runs.
struct ServerDescription {
  std::string version;
  absl::Time start_time;
  std::vector<DeviceDescription> devices;     // the chosen one first; none with the reference engine
  std::function<DeviceTests()> device_tests;  // empty with the reference engine
  int64_t max_message_bytes = 0;
  int64_t max_in_flight_bytes = 0;
  int64_t max_saved_forward_bytes = 0;
  int64_t max_watchers = 0;
};

}  // namespace normserve
