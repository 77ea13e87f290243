// What a server says about itself.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "normserve/session.h"

namespace normserve::client {

// One Vulkan physical device of the server.
struct Device {
  std::string name;         // as its driver reports it
  std::string uuid;         // 32 hexadecimal digits
  std::string type;         // "discrete GPU", "integrated GPU", "virtual GPU", "CPU" or "other"
  std::string driver;       // name and version
  std::string api_version;  // such as "1.3.239"
  bool in_use = false;      // whether the server computes on it
  std::string reason;       // why it was chosen or not
};

// What the server refuses to go beyond.
struct Limits {
  int64_t max_message_bytes = 0;
  int64_t max_sessions = 0;
  int64_t max_state_bytes = 0;
  int64_t max_num_features = 0;
  int64_t max_in_flight_bytes = 0;
  int64_t max_snapshots = 0;         // of one session
  int64_t max_collections = 0;       // merges and calibrations of one session that are not committed
  int64_t max_collection_parts = 0;  // of one merge or calibration
};

struct ServerInfo {
  std::string version;  // MAJOR.MINOR.PATCH
  absl::Time start_time;
  std::vector<Device> devices;  // the one in use first
  Limits limits;
  int64_t num_sessions = 0;
  int64_t state_bytes = 0;
  std::optional<Durability> default_durability;  // of a session whose creator asked for none
};

// What grpc.health.v1 says.
enum class Health {
  kUnknown = 0,
  kServing = 1,
  kNotServing = 2,
};

}  // namespace normserve::client
