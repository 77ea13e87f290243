// normctl forward: one batch from a file through a session.
#pragma once

#include <optional>
#include <string>

#include "client/cli/command_line.h"

namespace normserve::cli {

struct ForwardCommandOptions {
  std::string session;
  std::string input;                   // path of a .npy file
  std::string output;                  // path; empty: the output is only summed up
  bool channels_last = false;          // [N, ..., C]
  std::string mode;                    // "train", "eval", "shadow" or empty: the session's
  std::string normalize_with;          // "batch", "running" or empty: what the mode says
  std::string snapshot;                // whose statistics to normalise with; empty: as above
  std::optional<double> batch_weight;  // blended with the batch's, so much of these; unset: the snapshot's alone
  std::string update;                  // "none", "running", "shadow" or empty: what the mode says
  bool moments = false;                // print the batch's moments too
};

int Forward(const CommandLine& command_line, const ForwardCommandOptions& options);

}  // namespace normserve::cli
