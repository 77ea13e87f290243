// normctl diagnose.
#pragma once

#include <string>

#include "client/cli/command_line.h"
#include "normserve/client.h"

namespace normserve::cli {

// Why a session puts out something else in evaluation than in training; of a model, its layers, worst first.
// `file`: .json or .npz of moments, or .npy of a batch; empty: what `options` says.
int Diagnose(const CommandLine& command_line, const std::string& session, client::DiagnoseOptions options,
             const std::string& file);

}  // namespace normserve::cli
