// normctl observe, moments, merge and calibrate.
#pragma once

#include <string>
#include <vector>

#include "client/cli/command_line.h"

namespace normserve::cli {

// Of a command that sends data from files, one part a file: moments (.json, .npz), or a batch (.npy) of a session.
struct PartFiles {
  std::vector<std::string> files;  // PATH, or ID=PATH; without an id it is the path's last part, without its ending
};

struct ObserveCommandOptions {
  PartFiles parts;
  bool once = false;  // send the ids, under which data count once
  bool dry_run = false;
  bool reset = false;
};
int Observe(const CommandLine& command_line, const std::string& session, const ObserveCommandOptions& options);

struct MomentsCommandOptions {
  std::string source = "observed";  // or last-batch, shadow, observed-before
  int64_t first_channel = 0;
  int64_t num_channels = 0;  // 0: all from there on
};
int ReadMoments(const CommandLine& command_line, const std::string& session, const MomentsCommandOptions& options);

struct MergeCommandOptions {
  std::string id;
  PartFiles parts;
  std::string policy = "exact";  // or weighted, keep-local
  bool commit = false;
  bool drop = false;
};
int Merge(const CommandLine& command_line, const std::string& session, const MergeCommandOptions& options);

struct CalibrateCommandOptions {
  std::string id;
  PartFiles parts;
  std::string estimator = "pooled";  // or algorithm-2
  bool commit = false;
  std::string to_snapshot;
  bool drop = false;
};
int Calibrate(const CommandLine& command_line, const std::string& session, const CalibrateCommandOptions& options);

}  // namespace normserve::cli
