// normctl's commands that open, show, change and forget sessions. Each returns an exit code and prints its result on
// stdout, its failure on stderr.
#pragma once

#include <optional>
#include <string>

#include "client/cli/command_line.h"

namespace normserve::cli {

struct CreateOptions {
  std::string name;  // empty: the server makes one
  int64_t num_features = 0;
  std::optional<double> epsilon;
  std::optional<double> momentum;
  std::string convention, averaging, running_variance;  // as on the command line, or empty
  bool no_affine = false;
  bool no_running_stats = false;
  bool skip_non_finite = false;
  std::string durability;  // "none", "commit", "flush" or empty: the server's default
  client::Labels labels;
  std::string mode;  // "train", "eval", "shadow" or empty
  // Paths of .npy files; empty: the default.
  std::string weight;
  std::string bias;
  std::string running_mean;
  std::string running_var;
};

// What these options say of a session's configuration.
client::SessionConfig MakeConfig(const CreateOptions& options);
// "pytorch", "keras", "flax" or "onnx"; anything else: kUnspecified.
client::Convention ConventionOf(const std::string& text);

int Create(const CommandLine& command_line, const CreateOptions& options);
int List(const CommandLine& command_line, const client::ListSessionsOptions& options);
int Show(const CommandLine& command_line, const std::string& session);
int Clone(const CommandLine& command_line, const std::string& session, const std::string& clone_name);
int Delete(const CommandLine& command_line, const std::string& session);
// `mode` is "train" or "eval".
int SetMode(const CommandLine& command_line, const std::string& session, const std::string& mode);

// Paths of .npy files; empty: stays as it is.
int SetParameters(const CommandLine& command_line, const std::string& session, const std::string& weight,
                  const std::string& bias);

}  // namespace normserve::cli
