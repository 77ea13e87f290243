// normctl: Normserve from the command line.
#include <CLI/CLI.hpp>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "client/cli/backward_command.h"
#include "client/cli/checkpoint_commands.h"
#include "client/cli/command_line.h"
#include "client/cli/diagnose_command.h"
#include "client/cli/doctor.h"
#include "client/cli/forward_command.h"
#include "client/cli/population_commands.h"
#include "client/cli/server_commands.h"
#include "client/cli/session_commands.h"
#include "client/cli/snapshot_commands.h"
#include "client/cli/stats_command.h"
#include "client/cli/watch_command.h"

namespace normserve::cli {
namespace {

// The commands' options, filled in by the parser.
struct Options {
  CommandLine command_line;
  std::string timeout = "30s";
  CreateOptions create;
  ForwardCommandOptions forward;
  BackwardCommandOptions backward;
  ImportCommandOptions import;
  ExportCommandOptions export_;
  std::string session;
  std::string clone_name;
  std::string snapshot;
  client::ListSessionsOptions list;
  std::string mode;
  std::string weight, bias;
  std::string service;
  StatsCommandOptions stats;
  WatchCommandOptions watch;
  client::DiagnoseOptions diagnose;
  std::string diagnose_file;
  ObserveCommandOptions observe;
  MomentsCommandOptions moments;
  MergeCommandOptions merge;
  CalibrateCommandOptions calibrate;
};

const std::set<std::string> kModes = {"train", "eval", "shadow"};

// Says why `text` is no length of time; empty if it is one.
std::string CheckDuration(const std::string& text) {
  absl::Duration timeout;
  if (absl::ParseDuration(text, &timeout) && timeout > absl::ZeroDuration()) return "";
  return "'" + text +
         "' is no length of time: give a number above 0 and a unit (ms, s, m, h), such as 500ms, 5s, 2m or inf";
}

// Says why `text` is no label; empty if it is one. What may be in it is the server's to say.
std::string CheckLabel(const std::string& text) {
  const size_t equals = text.find('=');
  if (equals != std::string::npos && equals > 0) return "";
  return "'" + text + "' is no label: give KEY=VALUE, such as team=vision";
}

CLI::App* AddCommand(CLI::App& app, const std::string& name, const std::string& what, const std::string& example) {
  CLI::App* command = app.add_subcommand(name, what);
  command->footer("Example: " + example);
  command->fallthrough();  // --server, --timeout and --json are known after the command too
  return command;
}

// Of a command that takes a model too.
void AddNamed(CLI::App* command, std::string& session) {
  command->add_option("session", session, "name of the session; or of a model, ending in '/': all sessions below it")
      ->required()
      ->type_name("SESSION");
}

void AddSession(CLI::App* command, std::string& session) {
  command->add_option("session", session, "name of the session")->required()->type_name("SESSION");
}

// --label KEY=VALUE, as often as there are labels.
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

void AddSessionCommands(CLI::App& app, Options& options, std::function<int()>& run) {
  CLI::App* create = AddCommand(app, "create", "Opens a session: one batch-norm layer. Prints its name.",
                                "normctl create encoder/bn3 --num-features 64 --momentum 0.01 --label team=vision");
  CreateOptions& c = options.create;
  create->add_option("name", c.name, "segments joined by '/'; left out: the server makes one")->type_name("NAME");
  create->add_option("--num-features", c.num_features, "channels, C")->required()->type_name("C");
  create->add_option("--epsilon", c.epsilon, "added to the variance; default 1e-5")->type_name("E");
  create->add_option("--momentum", c.momentum, "weight of the newest batch; default 0.1")->type_name("M");
  create->add_option("--convention", c.convention, "pytorch (default), keras, flax or onnx: other defaults")
      ->check(CLI::IsMember({"pytorch", "keras", "flax", "onnx"}));
  create->add_option("--averaging", c.averaging, "exponential (default), cumulative or zero_debiased")
      ->check(CLI::IsMember({"exponential", "cumulative", "zero_debiased"}));
  create->add_option("--running-variance", c.running_variance, "unbiased (default) or biased")
      ->check(CLI::IsMember({"unbiased", "biased"}));
  create->add_flag("--no-affine", c.no_affine, "no weight and bias");
  create->add_flag("--no-running-stats", c.no_running_stats, "the batch's statistics in every mode");
  create->add_flag("--skip-non-finite", c.skip_non_finite,
                   "a batch with NaN or infinity is not folded in, not refused");
  create
      ->add_option("--durability", c.durability,
                   "what a change survives: none, commit (a crash) or flush (power loss); default: see normctl info")
      ->check(CLI::IsMember({"none", "commit", "flush"}));
  AddLabels(create, c.labels, "a word of yours about it, to list it by; may be repeated");
  create->add_option("--mode", c.mode, "train (default), eval or shadow")->check(CLI::IsMember(kModes));
  create->add_option("--weight", c.weight, ".npy, float32, [C]; default 1")->type_name("FILE");
  create->add_option("--bias", c.bias, ".npy, float32, [C]; default 0")->type_name("FILE");
  create->add_option("--running-mean", c.running_mean, ".npy, float32 or float64, [C]; default 0")->type_name("FILE");
  create->add_option("--running-var", c.running_var, ".npy, float32 or float64, [C]; default 1")->type_name("FILE");
  create->callback([&] { run = [&] { return Create(options.command_line, options.create); }; });

  CLI::App* list = AddCommand(app, "list", "Lists the sessions, all or those under a prefix or with labels.",
                              "normctl list resnet50/ --label team=vision");
  list->add_option("prefix", options.list.prefix, "whole segments, such as resnet50/")->type_name("PREFIX");
  AddLabels(list, options.list.labels, "only sessions with this label; repeated: with all of them");
  list->callback([&] { run = [&] { return List(options.command_line, options.list); }; });

  CLI::App* show = AddCommand(app, "show", "Shows everything about a session.", "normctl show encoder/bn3");
  AddSession(show, options.session);
  show->callback([&] { run = [&] { return Show(options.command_line, options.session); }; });

  CLI::App* clone = AddCommand(app, "clone", "Copies a session as copy.deepcopy does. Prints the copy's name.",
                               "normctl clone encoder/bn3 encoder/bn3-before");
  AddSession(clone, options.session);
  clone->add_option("clone-name", options.clone_name, "left out: the server makes one")->type_name("NAME");
  clone->callback([&] { run = [&] { return Clone(options.command_line, options.session, options.clone_name); }; });

  CLI::App* remove = AddCommand(app, "delete", "Forgets a session and its snapshots.",
                                "normctl delete encoder/bn3\n         normctl delete encoder/");
  AddNamed(remove, options.session);
  remove->callback([&] { run = [&] { return Delete(options.command_line, options.session); }; });

  CLI::App* mode =
      AddCommand(app, "mode", "Sets what a forward that says nothing does, as module.train() and eval() do.",
                 "normctl mode encoder/bn3 eval\n         normctl mode encoder/ eval");
  AddNamed(mode, options.session);
  mode->add_option("mode", options.mode, "train, eval or shadow")->required()->check(CLI::IsMember(kModes));
  mode->callback([&] { run = [&] { return SetMode(options.command_line, options.session, options.mode); }; });
}

void AddParametersCommand(CLI::App& app, Options& options, std::function<int()>& run) {
  CLI::App* parameters = AddCommand(app, "parameters", "Replaces a session's weight (gamma), bias (beta) or both.",
                                    "normctl parameters encoder/bn3 --weight gamma.npy");
  AddSession(parameters, options.session);
  CLI::Option_group* given = parameters->add_option_group("what is replaced");
  given->add_option("--weight", options.weight, ".npy, float32, [C]; left out: stays")->type_name("FILE");
  given->add_option("--bias", options.bias, ".npy, float32, [C]; left out: stays")->type_name("FILE");
  given->require_option(1, 2);
  parameters->callback([&] {
    run = [&] { return SetParameters(options.command_line, options.session, options.weight, options.bias); };
  });
}

void AddStatsCommands(CLI::App& app, Options& options, std::function<int()>& run) {
  CLI::App* stats = AddCommand(
      app, "stats",
      "Shows the running statistics of a session, a line a channel, or of a model, a line a session, and what "
      "is the matter with channels.",
      "normctl stats encoder/bn3 --first 8 --count 4\n         normctl stats encoder/ --by-drift\n"
      "         normctl stats encoder/bn3 --plot bn3.png");
  StatsCommandOptions& s = options.stats;
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
  stats->callback([&] { run = [&] { return Stats(options.command_line, options.stats); }; });

  CLI::App* watch =
      AddCommand(app, "watch",
                 "Shows statistics as they change, until Ctrl-C: a table on a terminal, else a line for each "
                 "change.",
                 "normctl watch encoder/\n         normctl watch encoder/bn3 --interval 1s --count 60");
  WatchCommandOptions& w = options.watch;
  AddNamed(watch, w.session);
  watch->add_option("--interval", w.interval, "show it so often, changed or not; default: when something changed")
      ->check(CheckDuration)
      ->type_name("TIME");
  watch->add_option("--count", w.count, "end after so many; default 0: never")
      ->check([](const std::string& text) {
        return text.starts_with('-') ? "'" + text + "' is below 0: give how many, or 0 for no end" : "";
      })
      ->type_name("N");
  watch->callback([&] { run = [&] { return Watch(options.command_line, options.watch); }; });
}

void AddDiagnose(CLI::App& app, Options& options, std::function<int()>& run) {
  CLI::App* diagnose =
      AddCommand(app, "diagnose",
                 "Says why a session puts out something else in evaluation than in training, how much, and what to do; "
                 "of a model, "
                 "its layers, worst first. It goes by the newest training batch that the server has seen.",
                 "normctl diagnose encoder/bn3\n         normctl diagnose encoder/");
  AddNamed(diagnose, options.session);
  diagnose
      ->add_option("--samples", options.diagnose.samples_per_batch,
                   "samples N in the batch or data [N, C, ...]; default 0: as many as the moments say they are of")
      ->type_name("N");
  CLI::Option* file =
      diagnose
          ->add_option("--on", options.diagnose_file,
                       "by this in its place: a batch (.npy), or moments (.json or .npz, of a model by layer)")
          ->type_name("FILE");
  diagnose->add_flag("--observed", options.diagnose.observed, "by what was observed")->excludes(file);
  diagnose->add_flag("--channels", options.diagnose.return_channels, "with --json: the gap of each channel too");
  diagnose->callback([&] {
    run = [&] { return Diagnose(options.command_line, options.session, options.diagnose, options.diagnose_file); };
  });
}

// `batches`: whether a file may hold one.
CLI::Option* AddPartFiles(CLI::App* command, PartFiles& parts, bool batches) {
  return command
      ->add_option("files", parts.files,
                   std::string("one part a file: moments (.json or .npz, of a model by layer)") +
                       (batches ? " or a session's batch (.npy)" : "") +
                       "; its id is the file's name without the ending, or what ID=FILE says")
      ->type_name("FILE");
}

void AddPopulationCommands(CLI::App& app, Options& options, std::function<int()>& run) {
  CLI::App* observe =
      AddCommand(app, "observe", "Adds moments, or those of batches, to what a session has observed beside its state.",
                 "normctl observe encoder/bn3 step-17.npy\n         normctl observe encoder/ worker-3.json --once");
  AddNamed(observe, options.session);
  CLI::Option* files = AddPartFiles(observe, options.observe.parts, /*batches=*/true);
  observe->add_flag("--once", options.observe.once, "a file counts once, by its id, however often it is sent");
  observe->add_flag("--dry-run", options.observe.dry_run, "only say what would come of it");
  observe->add_flag("--reset", options.observe.reset,
                    "begin anew; diagnose --observed compares with what was observed before");
  observe->callback([&options, &run, files] {
    if (files->empty() && !options.observe.reset) {
      throw CLI::ValidationError("files", "none is given: name some, or --reset to begin anew");
    }
    run = [&options] { return Observe(options.command_line, options.session, options.observe); };
  });

  CLI::App* moments = AddCommand(
      app, "moments", "Shows the moments that are kept beside the state; with --json as merge reads them.",
      "normctl moments encoder/bn3 --source last-batch\n         normctl moments encoder/ --json > site-3.json");
  AddNamed(moments, options.session);
  moments
      ->add_option("--source", options.moments.source,
                   "observed (default), last-batch, shadow, or observed-before: what the last reset ended")
      ->check(CLI::IsMember({"observed", "last-batch", "shadow", "observed-before"}));
  moments->add_option("--first", options.moments.first_channel, "first channel; default 0")->type_name("N");
  moments->add_option("--count", options.moments.num_channels, "how many channels; default 0: all")->type_name("N");
  moments->callback([&] { run = [&] { return ReadMoments(options.command_line, options.session, options.moments); }; });

  CLI::App* merge = AddCommand(
      app, "merge",
      "Brings the moments of sites or workers to a merge, or commits it: then the running statistics are those of all "
      "values together. Without files and --commit it says how the merge stands.",
      "normctl merge encoder/ round-1 site-1.json site-2.npz\n         normctl merge encoder/ round-1 --commit");
  AddNamed(merge, options.session);
  merge->add_option("merge-id", options.merge.id, "names the merge")->required()->type_name("ID");
  AddPartFiles(merge, options.merge.parts, /*batches=*/false);
  merge
      ->add_option("--policy", options.merge.policy,
                   "exact (default), weighted (drops the variance between the parts) or keep-local (compares only)")
      ->check(CLI::IsMember({"exact", "weighted", "keep-local"}));
  CLI::Option* commit = merge->add_flag("--commit", options.merge.commit, "merge what is here, after the files");
  merge->add_flag("--drop", options.merge.drop, "forget the merge")->excludes(commit);
  merge->callback([&] { run = [&] { return Merge(options.command_line, options.session, options.merge); }; });

  CLI::App* calibrate = AddCommand(
      app, "calibrate",
      "Brings batches to a calibration, or commits it: then the running statistics are the population's. Without files "
      "and --commit it says how the calibration stands.",
      "normctl calibrate encoder/bn3 drift x1.npy x2.npy --commit\n         normctl calibrate encoder/ drift --commit");
  AddNamed(calibrate, options.session);
  calibrate->add_option("calibration-id", options.calibrate.id, "names the calibration")->required()->type_name("ID");
  AddPartFiles(calibrate, options.calibrate.parts, /*batches=*/true);
  calibrate
      ->add_option("--estimator", options.calibrate.estimator,
                   "pooled (default) or algorithm-2 (Ioffe & Szegedy 2015; batches of one size)")
      ->check(CLI::IsMember({"pooled", "algorithm-2"}));
  commit = calibrate->add_flag("--commit", options.calibrate.commit, "calibrate on what is here, after the files");
  calibrate
      ->add_option("--to-snapshot", options.calibrate.to_snapshot,
                   "with --commit: the result becomes this snapshot, the session stays as it is")
      ->type_name("NAME")
      ->needs(commit);
  calibrate->add_flag("--drop", options.calibrate.drop, "forget the calibration")->excludes(commit);
  calibrate->callback(
      [&] { run = [&] { return Calibrate(options.command_line, options.session, options.calibrate); }; });
}

void AddSnapshot(CLI::App* command, std::string& snapshot) {
  command->add_option("name", snapshot, "name of the snapshot, one segment")->required()->type_name("NAME");
}

void AddSnapshotCommands(CLI::App& app, Options& options, std::function<int()>& run) {
  CLI::App* take = AddCommand(app, "snapshot", "Keeps a session's state under a name.",
                              "normctl snapshot encoder/bn3 before-tuning");
  AddNamed(take, options.session);
  AddSnapshot(take, options.snapshot);
  take->callback([&] { run = [&] { return TakeSnapshot(options.command_line, options.session, options.snapshot); }; });

  CLI::App* restore = AddCommand(app, "restore", "Takes a session back to a snapshot, which stays.",
                                 "normctl restore encoder/bn3 before-tuning");
  AddNamed(restore, options.session);
  AddSnapshot(restore, options.snapshot);
  restore->callback([&] { run = [&] { return Restore(options.command_line, options.session, options.snapshot); }; });

  CLI::App* list = AddCommand(app, "snapshots", "Lists a session's snapshots.",
                              "normctl snapshots encoder/bn3\n         normctl snapshots encoder/");
  AddNamed(list, options.session);
  list->callback([&] { run = [&] { return ListSnapshots(options.command_line, options.session); }; });

  CLI::App* remove = AddCommand(app, "delete-snapshot", "Forgets one snapshot of a session.",
                                "normctl delete-snapshot encoder/bn3 before-tuning");
  AddNamed(remove, options.session);
  AddSnapshot(remove, options.snapshot);
  remove->callback(
      [&] { run = [&] { return DeleteSnapshot(options.command_line, options.session, options.snapshot); }; });
}

void AddCheckpointCommands(CLI::App& app, Options& options, std::function<int()>& run) {
  const auto conventions = CLI::IsMember({"pytorch", "keras", "flax", "onnx"});
  CLI::App* import = AddCommand(
      app, "import", "Makes sessions in EVAL mode of a safetensors checkpoint's batch-norm layers, all or none.",
      "normctl import resnet50/ resnet50.safetensors --existing replace");
  ImportCommandOptions& i = options.import;
  import->add_option("name", i.name, "a model, ending in '/'; or a session, for a file of one layer")
      ->required()
      ->type_name("NAME");
  import->add_option("file", i.file, "a safetensors file")->required()->type_name("FILE");
  import->add_option("--prefix", i.prefix, "only layers below it, such as backbone")->type_name("PATH");
  import->add_option("--existing", i.existing, "sessions that are there: refuse (default), replace or skip")
      ->check(CLI::IsMember({"refuse", "replace", "skip"}));
  import->add_option("--mode", i.create.mode, "train, eval (default) or shadow")->check(CLI::IsMember(kModes));
  import->add_option("--epsilon", i.create.epsilon, "which is not in the file; default 1e-5")->type_name("E");
  import->add_option("--momentum", i.create.momentum, "which is not in the file; default 0.1")->type_name("M");
  import->add_option("--convention", i.create.convention, "of the sessions; default pytorch")->check(conventions);
  import->add_option("--durability", i.create.durability, "none, commit or flush; as create")
      ->check(CLI::IsMember({"none", "commit", "flush"}));
  AddLabels(import, i.create.labels, "a word of yours about them; may be repeated");
  import->add_option("--kept-by", i.kept_by, "the convention of the file's statistics; default: the sessions'")
      ->check(conventions);
  import
      ->add_option("--values-per-channel", i.values_per_channel,
                   "of every batch that they were kept from, to convert the running variance")
      ->type_name("N");
  import->callback([&] { run = [&] { return Import(options.command_line, options.import); }; });

  CLI::App* out = AddCommand(app, "export", "Writes sessions as a safetensors file under PyTorch's names.",
                             "normctl export resnet50/ -o bn.safetensors\n         normctl export resnet50/ --into "
                             "resnet50.safetensors -o new.safetensors");
  ExportCommandOptions& e = options.export_;
  AddNamed(out, e.name);
  out->add_option("-o,--output", e.output, "the file to write")->required()->type_name("FILE");
  out->add_option("--into", e.into, "a checkpoint whose other tensors the file has too")->type_name("FILE");
  out->add_option("--prefix", e.prefix, "put before every tensor's name, with a '.'")->type_name("PATH");
  out->add_option("--convention", e.convention, "by which the file keeps the variance; default: as it is")
      ->check(conventions);
  out->add_flag("--folded", e.folded, "scale and shift of each layer instead of it")->excludes("--into");
  out->add_option("--values-per-channel", e.values_per_channel, "of every batch, to convert the running variance")
      ->type_name("N");
  out->callback([&] { run = [&] { return Export(options.command_line, options.export_); }; });
}

void AddForwardCommand(CLI::App& app, Options& options, std::function<int()>& run) {
  CLI::App* forward =
      AddCommand(app, "forward", "Runs one batch through a session; in TRAIN mode this updates its running statistics.",
                 "normctl forward encoder/bn3 --input x.npy --output y.npy");
  ForwardCommandOptions& f = options.forward;
  AddSession(forward, f.session);
  forward->add_option("--input", f.input, ".npy, float32, C order, shape [N, C, ...]")->required()->type_name("FILE");
  forward->add_option("--output", f.output, "where the result goes as .npy; left out: nowhere")->type_name("FILE");
  forward->add_option("--mode", f.mode, "train, eval or shadow, for this call alone")->check(CLI::IsMember(kModes));
  forward->add_flag("--channels-last", f.channels_last, "the input is [N, ..., C]");
  forward->add_option("--normalize-with", f.normalize_with, "batch or running, whatever the mode says")
      ->check(CLI::IsMember({"batch", "running"}));
  CLI::Option* snapshot = forward->add_option("--snapshot", f.snapshot, "normalise with this snapshot's statistics")
                              ->type_name("NAME")
                              ->excludes("--normalize-with");
  forward
      ->add_option("--batch-weight", f.batch_weight,
                   "0 to 1: so much of the batch's statistics, the rest of the snapshot's")
      ->type_name("W")
      ->needs(snapshot);
  forward->add_option("--update", f.update, "none, running or shadow, whatever the mode says")
      ->check(CLI::IsMember({"none", "running", "shadow"}));
  forward->add_flag("--moments", f.moments, "print the batch's count, mean and m2 too");
  forward->callback([&] { run = [&] { return Forward(options.command_line, options.forward); }; });
}

void AddBackwardCommand(CLI::App& app, Options& options, std::function<int()>& run) {
  CLI::App* backward =
      AddCommand(app, "backward", "Gives the gradients of a batch for the gradient of its output; changes nothing.",
                 "normctl backward encoder/bn3 --input x.npy --grad-output dy.npy --output dx.npy");
  BackwardCommandOptions& b = options.backward;
  AddSession(backward, b.session);
  backward->add_option("--input", b.input, ".npy, float32, C order, shape [N, C, ...]")->required()->type_name("FILE");
  backward->add_option("--grad-output", b.grad_output, "the same of the output's gradient")
      ->required()
      ->type_name("FILE");
  backward->add_option("--output", b.output, "where the input's gradient goes as .npy; left out: nowhere")
      ->type_name("FILE");
  backward->add_option("--mode", b.mode, "train or eval, for this call alone; default: the session's")
      ->check(CLI::IsMember({"train", "eval"}));
  backward->add_flag("--channels-last", b.channels_last, "both are [N, ..., C]");
  backward->callback([&] { run = [&] { return Backward(options.command_line, options.backward); }; });
}

void AddServerCommands(CLI::App& app, Options& options, std::function<int()>& run) {
  CLI::App* info = AddCommand(app, "info", "Shows the server's version, devices and limits.", "normctl info --json");
  info->callback([&] { run = [&] { return Info(options.command_line); }; });

  CLI::App* health = AddCommand(app, "health", "Says whether the server serves: exit status 0 only if it does.",
                                "normctl health --timeout 2s");
  health->add_option("--service", options.service, "a gRPC service or device/UUID; default: the whole server")
      ->type_name("NAME");
  health->callback([&] { run = [&] { return CheckHealth(options.command_line, options.service); }; });

  CLI::App* doctor = AddCommand(
      app, "doctor", "Says what there is to compute on, what is chosen and why, and what to do.", "normctl doctor");
  doctor->callback([&] { run = [&] { return Doctor(options.command_line); }; });
}

int Main(int argc, char** argv) {
  Options options;
  std::function<int()> run;
  CLI::App app("Normserve from the command line: batch normalisation as a service.", "normctl");
  app.footer(
      "normctl COMMAND --help shows a command's options and an example.\n"
      "Exit status: 0 done, 1 a call or a file failed, 2 the command line is wrong.");
  app.set_version_flag("--version", std::string("normctl ") + NORMSERVE_VERSION);
  app.get_formatter()->column_width(34);
  app.require_subcommand(1);
  app.add_option("--server", options.command_line.server, "the server; default 127.0.0.1:8001")
      ->envname("NORMSERVE_SERVER")
      ->type_name("HOST:PORT");
  app.add_option("--timeout", options.timeout, "give up after this long; default 30s")
      ->check(CheckDuration)
      ->type_name("TIME");
  app.add_flag("--json", options.command_line.json, "print JSON, one line, for programs");
  AddSessionCommands(app, options, run);
  AddParametersCommand(app, options, run);
  AddStatsCommands(app, options, run);
  AddDiagnose(app, options, run);
  AddPopulationCommands(app, options, run);
  AddSnapshotCommands(app, options, run);
  AddCheckpointCommands(app, options, run);
  AddForwardCommand(app, options, run);
  AddBackwardCommand(app, options, run);
  AddServerCommands(app, options, run);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kOk : kUsage;
  }
  absl::ParseDuration(options.timeout, &options.command_line.timeout);
  const int code = run();
  // What could not be printed is lost, such as on a full disk.
  const bool is_printed = std::fflush(stdout) == 0 && std::ferror(stdout) == 0;
  if (is_printed || code != kOk) return code;
  std::fputs("normctl: standard output cannot be written, so that the result is not all there\n", stderr);
  return kFailed;
}

}  // namespace
}  // namespace normserve::cli

int main(int argc, char** argv) { return normserve::cli::Main(argc, argv); }
