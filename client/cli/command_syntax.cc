#include "client/cli/command_syntax.h"

#include <utility>
#include <vector>

#include "absl/time/time.h"

namespace normserve::cli {
namespace {

// Says why `text` is no label; empty if it is one. What may be in it is the server's to say.
std::string CheckLabel(const std::string& text) {
  const size_t equals = text.find('=');
  if (equals != std::string::npos && equals > 0) return "";
  return "'" + text + "' is no label: give KEY=VALUE, such as team=vision";
}

}  // namespace

CLI::App* AddCommand(CLI::App& app, const std::string& name, const std::string& what, const std::string& example) {
  CLI::App* command = app.add_subcommand(name, what);
  command->footer("Example: " + example);
  command->fallthrough();  // --server, --timeout and --json are known after the command too
  return command;
}

void SetRun(CLI::App* command, Invocation& invocation, std::function<int(const CommandLine&)> run) {
  command->callback([&invocation, run = std::move(run)] { invocation.run = run; });
}

void AddSession(CLI::App* command, std::string& session) {
  command->add_option("session", session, "name of the session")->required()->type_name("SESSION");
}

void AddNamed(CLI::App* command, std::string& session) {
  command->add_option("session", session, "name of the session; or of a model, ending in '/': all sessions below it")
      ->required()
      ->type_name("SESSION");
}

void AddLabels(CLI::App* command, client::Labels& labels, const std::string& what) {
  const auto take = [&labels](const std::vector<std::string>& texts) {
    labels.clear();
    for (const std::string& text : texts) {
      const size_t equals = text.find('=');
      const std::string key = text.substr(0, equals);
      // How CLI11 is told that an option is wrong.
      if (labels.contains(key)) throw CLI::ValidationError("--label", "'" + key + "' is given twice");
      labels[key] = text.substr(equals + 1);
    }
  };
  command->add_option_function<std::vector<std::string>>("--label", take, what)
      ->check(CheckLabel)
      ->allow_extra_args(false)
      ->type_name("KEY=VALUE");
}

CLI::IsMember IsMode() { return CLI::IsMember({"eval", "shadow", "train"}); }
CLI::IsMember IsConvention() { return CLI::IsMember({"pytorch", "keras", "flax", "onnx"}); }
CLI::IsMember IsDurability() { return CLI::IsMember({"none", "commit", "flush"}); }

std::string CheckDuration(const std::string& text) {
  absl::Duration timeout;
  if (absl::ParseDuration(text, &timeout) && timeout > absl::ZeroDuration()) return "";
  return "'" + text +
         "' is no length of time: give a number above 0 and a unit (ms, s, m, h), such as 500ms, 5s, 2m or inf";
}

}  // namespace normserve::cli
