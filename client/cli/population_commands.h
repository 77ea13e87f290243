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
  std::string session;  // here and below: or a model, named with a '/' at its end
  PartFiles parts;
  bool once = false;  // send the ids, under which data count once
  bool dry_run = false;
  bool reset = false;
};
int Observe(const CommandLine& command_line, const ObserveCommandOptions& options);

struct MomentsCommandOptions {
  std::string session;
  std::string source = "observed";  // or last-batch, shadow, observed-before
  int64_t first_channel = 0;
  int64_t num_channels = 0;  // 0: all from there on
};
int ReadMoments(const CommandLine& command_line, const MomentsCommandOptions& options);

// Of a merge or a calibration: what is gathered under an id, and what becomes of it after these parts.
struct GatheringOptions {
  std::string session;
  std::string id;
  PartFiles parts;
  bool commit = false;
  bool drop = false;
};

struct MergeCommandOptions {
  GatheringOptions gathering;
  std::string policy = "exact";  // or weighted, keep-local
};
int Merge(const CommandLine& command_line, const MergeCommandOptions& options);

struct CalibrateCommandOptions {
  GatheringOptions gathering;
  std::string estimator = "pooled";  // or algorithm-2
  std::string to_snapshot;           // to be committed to; empty: to the session
};
int Calibrate(const CommandLine& command_line, const CalibrateCommandOptions& options);

}  // namespace normserve::cli
