// normctl stats.
#pragma once

#include <string>

#include "client/cli/command_line.h"
#include "normserve/client.h"

namespace normserve::cli {

// The statistics of a session, a line a channel; or of a model, named with a '/' at its end, a line a session.
int Stats(const CommandLine& command_line, const std::string& session, const client::StatsOptions& options);

}  // namespace normserve::cli
