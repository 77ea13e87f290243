// normctl observe, moments, merge and calibrate.
#include <memory>
#include <string>

#include "client/cli/command_syntax.h"
#include "client/cli/population_commands.h"

namespace normserve::cli {
namespace {

// `batches`: whether a file may hold one.
CLI::Option* AddPartFiles(CLI::App* command, PartFiles& parts, bool batches) {
  return command
      ->add_option("files", parts.files,
                   std::string("one part a file: moments (.json or .npz, of a model by layer)") +
                       (batches ? " or a session's batch (.npy)" : "") +
                       "; its id is the file's name without the ending, or what ID=FILE says")
      ->type_name("FILE");
}

// Of what is gathered, session, id and files; `kind` is "merge" or "calibration".
void AddParts(CLI::App* command, GatheringOptions& gathering, const std::string& kind, bool batches) {
  AddNamed(command, gathering.session);
  command->add_option(kind + "-id", gathering.id, "names the " + kind)->required()->type_name("ID");
  AddPartFiles(command, gathering.parts, batches);
}

CLI::Option* AddCommit(CLI::App* command, GatheringOptions& gathering, const std::string& verb) {
  return command->add_flag("--commit", gathering.commit, verb + " what is here, after the files");
}

void AddDrop(CLI::App* command, GatheringOptions& gathering, const std::string& kind, CLI::Option* commit) {
  command->add_flag("--drop", gathering.drop, "forget the " + kind)->excludes(commit);
}

void AddObserve(CLI::App& app, Invocation& invocation) {
  CLI::App* observe =
      AddCommand(app, "observe", "Adds moments, or those of batches, to what a session has observed beside its state.",
                 "normctl observe encoder/bn3 step-17.npy\n         normctl observe encoder/ worker-3.json --once");
  const auto options = std::make_shared<ObserveCommandOptions>();
  AddNamed(observe, options->session);
  CLI::Option* files = AddPartFiles(observe, options->parts, /*batches=*/true);
  observe->add_flag("--once", options->once, "a file counts once, by its id, however often it is sent");
  observe->add_flag("--dry-run", options->dry_run, "only say what would come of it");
  observe->add_flag("--reset", options->reset,
                    "begin anew; diagnose --observed compares with what was observed before");
  observe->callback([&invocation, options, files] {
    if (files->empty() && !options->reset) {
      throw CLI::ValidationError("files", "none is given: name some, or --reset to begin anew");
    }
    invocation.run = [options](const CommandLine& line) { return Observe(line, *options); };
  });
}

void AddMoments(CLI::App& app, Invocation& invocation) {
  CLI::App* moments = AddCommand(
      app, "moments", "Shows the moments that are kept beside the state; with --json as merge reads them.",
      "normctl moments encoder/bn3 --source last-batch\n         normctl moments encoder/ --json > site-3.json");
  const auto options = std::make_shared<MomentsCommandOptions>();
  AddNamed(moments, options->session);
  moments
      ->add_option("--source", options->source,
                   "observed (default), last-batch, shadow, or observed-before: what the last reset ended")
      ->check(CLI::IsMember({"observed", "last-batch", "shadow", "observed-before"}));
  moments->add_option("--first", options->first_channel, "first channel; default 0")->type_name("N");
  moments->add_option("--count", options->num_channels, "how many channels; default 0: all")->type_name("N");
  SetRun(moments, invocation, [options](const CommandLine& line) { return ReadMoments(line, *options); });
}

void AddMerge(CLI::App& app, Invocation& invocation) {
  CLI::App* merge = AddCommand(
      app, "merge",
      "Brings the moments of sites or workers to a merge, or commits it: then the running statistics are those of all "
      "values together. Without files and --commit it says how the merge stands.",
      "normctl merge encoder/ round-1 site-1.json site-2.npz\n         normctl merge encoder/ round-1 --commit");
  const auto options = std::make_shared<MergeCommandOptions>();
  GatheringOptions& gathering = options->gathering;
  AddParts(merge, gathering, "merge", /*batches=*/false);
  merge
      ->add_option("--policy", options->policy,
                   "exact (default), weighted (drops the variance between the parts) or keep-local (compares only)")
      ->check(CLI::IsMember({"exact", "weighted", "keep-local"}));
  CLI::Option* commit = AddCommit(merge, gathering, "merge");
  AddDrop(merge, gathering, "merge", commit);
  SetRun(merge, invocation, [options](const CommandLine& line) { return Merge(line, *options); });
}

void AddCalibrate(CLI::App& app, Invocation& invocation) {
  CLI::App* calibrate = AddCommand(
      app, "calibrate",
      "Brings batches to a calibration, or commits it: then the running statistics are the population's. Without files "
      "and --commit it says how the calibration stands.",
      "normctl calibrate encoder/bn3 drift x1.npy x2.npy --commit\n         normctl calibrate encoder/ drift --commit");
  const auto options = std::make_shared<CalibrateCommandOptions>();
  GatheringOptions& gathering = options->gathering;
  AddParts(calibrate, gathering, "calibration", /*batches=*/true);
  calibrate
      ->add_option("--estimator", options->estimator,
                   "pooled (default) or algorithm-2 (Ioffe & Szegedy 2015; batches of one size)")
      ->check(CLI::IsMember({"pooled", "algorithm-2"}));
  CLI::Option* commit = AddCommit(calibrate, gathering, "calibrate on");
  calibrate
      ->add_option("--to-snapshot", options->to_snapshot,
                   "with --commit: the result becomes this snapshot, the session stays as it is")
      ->type_name("NAME")
      ->needs(commit);
  AddDrop(calibrate, gathering, "calibration", commit);
  SetRun(calibrate, invocation, [options](const CommandLine& line) { return Calibrate(line, *options); });
}

}  // namespace

void AddPopulationCommands(CLI::App& app, Invocation& invocation) {
  AddObserve(app, invocation);
  AddMoments(app, invocation);
  AddMerge(app, invocation);
  AddCalibrate(app, invocation);
}

}  // namespace normserve::cli
