// normctl import and export: checkpoints in and out. Each returns an exit code and prints its result on stdout, its
// failure on stderr, and there too how far it is where it takes longer than a second.
#pragma once

#include <string>

#include "client/cli/command_line.h"
#include "client/cli/session_commands.h"

namespace normserve::cli {

struct ImportCommandOptions {
  std::string name;                 // of a model, ending in '/', or of a session
  std::string file;                 // a safetensors file
  std::string prefix;               // as client::ImportOptions
  std::string existing = "refuse";  // or "replace", "skip"
  CreateOptions create;             // mode and what is not in a file; num_features and the vectors stay as they are
  std::string kept_by;              // "pytorch", "keras", "flax", "onnx" or empty
  int64_t values_per_channel = 0;
};

struct ExportCommandOptions {
  std::string name;        // of a session, or of a model, ending in '/'
  std::string output;      // the file that is written
  std::string into;        // a checkpoint that the layers go into; empty: the file has them alone
  std::string prefix;      // as client::ExportOptions
  std::string convention;  // as kept_by above
  bool folded = false;
  int64_t values_per_channel = 0;
};

int Import(const CommandLine& command_line, const ImportCommandOptions& options);
int Export(const CommandLine& command_line, const ExportCommandOptions& options);

}  // namespace normserve::cli
