// normctl backward: the gradients of one batch.
#pragma once

#include <string>

#include "client/cli/command_line.h"

namespace normserve::cli {

struct BackwardCommandOptions {
  std::string session;
  std::string input;           // path of a .npy file
  std::string grad_output;     // path of a .npy file of the same shape
  std::string output;          // path, of the gradient of the input; empty: it is only summed up
  bool channels_last = false;  // both are [N, ..., C]
  std::string mode;            // "train", "eval" or empty: the session's
};

// Runs the batch forward, changing nothing, and then backward.
int Backward(const CommandLine& command_line, const BackwardCommandOptions& options);

}  // namespace normserve::cli
