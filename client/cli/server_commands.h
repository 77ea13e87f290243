// normctl's commands about the server itself.
#pragma once

#include <string>

#include "client/cli/command_line.h"

namespace normserve::cli {

// What the server is: version, default durability, devices, limits.
int Info(const CommandLine& command_line);

// Whether it serves: kOk only if it does.
int CheckHealth(const CommandLine& command_line, const std::string& service);

// One device, as Info and doctor show it.
std::string DeviceText(const client::Device& device);

}  // namespace normserve::cli
