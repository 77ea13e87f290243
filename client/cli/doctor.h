// normctl doctor: what this machine and the server have to compute on.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "client/cli/command_line.h"

namespace normserve::cli {

// This machine, as text and as JSON.
struct MachineReport {
  std::string text;
  nlohmann::ordered_json json;
  bool usable = false;  // a server started here would find a device
};

// Looks at this machine's Vulkan drivers. Where normctl was built without them (NORMSERVE_SERVER off), says so.
MachineReport InspectMachine();

// Shows the machine and, if a server answers, what it uses. kOk if either has a device to compute on.
int Doctor(const CommandLine& command_line);

}  // namespace normserve::cli
