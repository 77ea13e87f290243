// normctl stats.
#pragma once

#include <string>

#include "client/cli/command_line.h"
#include "normserve/client.h"

namespace normserve::cli {

struct StatsCommandOptions {
  std::string session;  // or a model, named with a '/' at its end
  client::StatsOptions stats;
  std::string
      compare;  // "last-batch", "shadow", "observed", or empty: the newest batch for a model, nothing for a session
  bool by_drift = false;  // a model's sessions in the order of their drift
  std::string plot;       // path of a PNG file; empty: none
  bool history = false;   // what was seen over time, in place of the channels
  std::string since;      // how long ago the history begins, such as "10m"; empty: as far back as it is kept
};

// The statistics of a session, a line a channel; or of a model, a line a session.
int Stats(const CommandLine& command_line, const StatsCommandOptions& options);

}  // namespace normserve::cli
