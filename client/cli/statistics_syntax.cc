// normctl stats, watch and diagnose.
#include <memory>
#include <string>

#include "client/cli/command_syntax.h"
#include "client/cli/diagnose_command.h"
#include "client/cli/stats_command.h"
#include "client/cli/watch_command.h"

namespace normserve::cli {
namespace {

void AddStats(CLI::App& app, Invocation& invocation) {
  CLI::App* stats = AddCommand(
      app, "stats",
      "Shows the running statistics of a session, a line a channel, or of a model, a line a session, and what "
      "is the matter with channels.",
      "normctl stats encoder/bn3 --first 8 --count 4\n         normctl stats encoder/ --by-drift\n"
      "         normctl stats encoder/bn3 --plot bn3.png");
  const auto options = std::make_shared<StatsCommandOptions>();
  StatsCommandOptions& s = *options;
  AddNamed(stats, s.session);
  stats->add_option("--first", s.stats.first_channel, "first channel; default 0")->type_name("N");
  stats->add_option("--count", s.stats.num_channels, "how many channels; default 0: all")->type_name("N");
  stats->add_flag("--last-batch", s.stats.return_last_batch, "the moments of the newest training batch too");
  stats->add_flag("--shadow", s.stats.return_shadow, "the shadow moments too");
  stats
      ->add_option("--compare", s.compare,
                   "last-batch, shadow or observed: how far those lie from the running statistics; a model's default: "
                   "last-batch")
      ->check(CLI::IsMember({"last-batch", "shadow", "observed"}));
  stats->add_flag("--by-drift", s.by_drift, "a model's sessions with the most drifted first");
  stats
      ->add_option("--plot", s.plot,
                   "a picture of a session: running mean and deviation a channel, beside those of the newest batch")
      ->type_name("FILE.png");
  CLI::Option* history =
      stats->add_flag("--history", s.history,
                      "what was seen over time instead, a line a batch: the newest eight, ever fewer of those before");
  stats->add_option("--since", s.since, "only of the history's last 30s, 10m, 12h, ...")
      ->needs(history)
      ->check(CheckDuration);
  SetRun(stats, invocation, [options](const CommandLine& line) { return Stats(line, *options); });
}

void AddWatch(CLI::App& app, Invocation& invocation) {
  CLI::App* watch =
      AddCommand(app, "watch",
                 "Shows statistics as they change, until Ctrl-C: a table on a terminal, else a line for each "
                 "change.",
                 "normctl watch encoder/\n         normctl watch encoder/bn3 --interval 1s --count 60");
  const auto options = std::make_shared<WatchCommandOptions>();
  WatchCommandOptions& w = *options;
  AddNamed(watch, w.session);
  watch->add_option("--interval", w.interval, "show it so often, changed or not; default: when something changed")
      ->check(CheckDuration)
      ->type_name("TIME");
  watch->add_option("--count", w.count, "end after so many; default 0: never")
      ->check([](const std::string& text) {
        return text.starts_with('-') ? "'" + text + "' is below 0: give how many, or 0 for no end" : "";
      })
      ->type_name("N");
  SetRun(watch, invocation, [options](const CommandLine& line) { return Watch(line, *options); });
}

void AddDiagnose(CLI::App& app, Invocation& invocation) {
  CLI::App* diagnose =
      AddCommand(app, "diagnose",
                 "Says why a session puts out something else in evaluation than in training, how much, and what to do; "
                 "of a model, "
                 "its layers, worst first. It goes by the newest training batch that the server has seen.",
                 "normctl diagnose encoder/bn3\n         normctl diagnose encoder/");
  struct Given {
    std::string session;
    client::DiagnoseOptions options;
    std::string file;
  };
  const auto given = std::make_shared<Given>();
  AddNamed(diagnose, given->session);
  diagnose
      ->add_option("--samples", given->options.samples_per_batch,
                   "samples N in the batch or data [N, C, ...]; default 0: as many as the moments say they are of")
      ->type_name("N");
  CLI::Option* file =
      diagnose
          ->add_option("--on", given->file,
                       "by this in its place: a batch (.npy), or moments (.json or .npz, of a model by layer)")
          ->type_name("FILE");
  diagnose->add_flag("--observed", given->options.observed, "by what was observed")->excludes(file);
  diagnose->add_flag("--channels", given->options.return_channels, "with --json: the gap of each channel too");
  SetRun(diagnose, invocation,
         [given](const CommandLine& line) { return Diagnose(line, given->session, given->options, given->file); });
}

}  // namespace

void AddStatisticsCommands(CLI::App& app, Invocation& invocation) {
  AddStats(app, invocation);
  AddWatch(app, invocation);
  AddDiagnose(app, invocation);
}

}  // namespace normserve::cli
