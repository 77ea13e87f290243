// normctl's syntax: its commands and their options, as CLI11 reads them. A group of commands is declared in a file
// *_syntax.cc; what each does is a function of *_command(s).h.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>

#include "client/cli/command_line.h"

namespace normserve::cli {

// What a command line asks for.
struct Invocation {
  CommandLine command_line;
  std::function<int(const CommandLine&)> run;  // the command that was named; gives an exit code
};

// Each adds a group to `app`. Once that has parsed a command line, `invocation` is what it asks for.
void AddSessionCommands(CLI::App& app, Invocation& invocation);
void AddStatisticsCommands(CLI::App& app, Invocation& invocation);  // stats, watch, diagnose
void AddPopulationCommands(CLI::App& app, Invocation& invocation);  // observe, moments, merge, calibrate
void AddSnapshotCommands(CLI::App& app, Invocation& invocation);
void AddCheckpointCommands(CLI::App& app, Invocation& invocation);  // import, export
void AddBatchCommands(CLI::App& app, Invocation& invocation);       // forward, backward
void AddServerCommands(CLI::App& app, Invocation& invocation);      // info, health, doctor

// What the groups have in common.

CLI::App* AddCommand(CLI::App& app, const std::string& name, const std::string& what, const std::string& example);
// What is done where `command` is named. `run` owns what its options are read into.
void SetRun(CLI::App* command, Invocation& invocation, std::function<int(const CommandLine&)> run);

void AddSession(CLI::App* command, std::string& session);
// Of a command that takes a model too.
void AddNamed(CLI::App* command, std::string& session);
// --label KEY=VALUE, as often as there are labels.
void AddLabels(CLI::App* command, client::Labels& labels, const std::string& what);

// What options take.
CLI::IsMember IsMode();
CLI::IsMember IsConvention();
CLI::IsMember IsDurability();
// Says why `text` is no length of time; empty if it is one.
std::string CheckDuration(const std::string& text);

}  // namespace normserve::cli
