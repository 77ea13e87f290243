// normctl: Normserve from the command line.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>

#include "absl/time/time.h"
#include "client/cli/command_line.h"
#include "client/cli/command_syntax.h"

namespace normserve::cli {
namespace {

int Main(int argc, char** argv) {
  Invocation invocation;
  CommandLine& command_line = invocation.command_line;
  std::string timeout = "30s";
  CLI::App app("Normserve from the command line: batch normalisation as a service.", "normctl");
  app.footer(
      "normctl COMMAND --help shows a command's options and an example.\n"
      "Exit status: 0 done, 1 a call or a file failed, 2 the command line is wrong.");
  app.set_version_flag("--version", std::string("normctl ") + NORMSERVE_VERSION);
  app.get_formatter()->column_width(34);
  app.require_subcommand(1);
  app.add_option("--server", command_line.server, "the server; default 127.0.0.1:8001")
      ->envname("NORMSERVE_SERVER")
      ->type_name("HOST:PORT");
  app.add_option("--timeout", timeout, "give up after this long; default 30s")->check(CheckDuration)->type_name("TIME");
  app.add_flag("--json", command_line.json, "print JSON, one line, for programs");
  AddSessionCommands(app, invocation);
  AddStatisticsCommands(app, invocation);
  AddPopulationCommands(app, invocation);
  AddSnapshotCommands(app, invocation);
  AddCheckpointCommands(app, invocation);
  AddBatchCommands(app, invocation);
  AddServerCommands(app, invocation);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kOk : kUsage;
  }
  absl::ParseDuration(timeout, &command_line.timeout);
  const int code = invocation.run(command_line);
  // What could not be printed is lost, such as on a full disk.
  const bool is_printed = std::fflush(stdout) == 0 && std::ferror(stdout) == 0;
  if (is_printed || code != kOk) return code;
  std::fputs("normctl: standard output cannot be written, so that the result is not all there\n", stderr);
  return kFailed;
}

}  // namespace
}  // namespace normserve::cli

int main(int argc, char** argv) { return normserve::cli::Main(argc, argv); }
