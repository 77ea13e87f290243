// normctl watch.
#pragma once

#include <cstdint>
#include <string>

#include "client/cli/command_line.h"
#include "normserve/client.h"

namespace normserve::cli {

struct WatchCommandOptions {
  std::string session;   // or a model, named with a '/' at its end
  std::string interval;  // "1s"; empty: when something changed
  int64_t count = 0;     // updates until it ends; 0: until it is interrupted
};

// Shows statistics as they change: on a terminal a table that is drawn anew, else a line for each session that changed;
// with --json a JSON line. Ends with kOk at SIGINT, SIGTERM and after `count` updates.
int Watch(const CommandLine& command_line, const WatchCommandOptions& options);

}  // namespace normserve::cli
