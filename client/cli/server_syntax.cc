// normctl info, health and doctor.
#include <memory>
#include <string>

#include "client/cli/command_syntax.h"
#include "client/cli/doctor.h"
#include "client/cli/server_commands.h"

namespace normserve::cli {

void AddServerCommands(CLI::App& app, Invocation& invocation) {
  CLI::App* info = AddCommand(app, "info", "Shows the server's version, devices and limits.", "normctl info --json");
  SetRun(info, invocation, Info);

  CLI::App* health = AddCommand(app, "health", "Says whether the server serves: exit status 0 only if it does.",
                                "normctl health --timeout 2s");
  const auto service = std::make_shared<std::string>();
  health->add_option("--service", *service, "a gRPC service or device/UUID; default: the whole server")
      ->type_name("NAME");
  SetRun(health, invocation, [service](const CommandLine& line) { return CheckHealth(line, *service); });

  CLI::App* doctor = AddCommand(
      app, "doctor", "Says what there is to compute on, what is chosen and why, and what to do.", "normctl doctor");
  SetRun(doctor, invocation, Doctor);
}

}  // namespace normserve::cli
