// normctl's commands about the snapshots of a session. Each returns an exit code and prints its result on stdout, its
// failure on stderr.
#pragma once

#include <string>

#include "client/cli/command_line.h"

namespace normserve::cli {

int TakeSnapshot(const CommandLine& command_line, const std::string& session, const std::string& snapshot);
int Restore(const CommandLine& command_line, const std::string& session, const std::string& snapshot);
int ListSnapshots(const CommandLine& command_line, const std::string& session);
int DeleteSnapshot(const CommandLine& command_line, const std::string& session, const std::string& snapshot);

}  // namespace normserve::cli
