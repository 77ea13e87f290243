// normctl create, list, show, clone, delete, mode, parameters; snapshot, restore, snapshots and delete-snapshot.
#include <memory>
#include <string>

#include "client/cli/command_syntax.h"
#include "client/cli/session_commands.h"
#include "client/cli/snapshot_commands.h"

namespace normserve::cli {
namespace {

// What is given to the one command that a command line names, if it is not create.
struct Given {
  client::ListSessionsOptions list;
  std::string session;
  std::string clone_name;
  std::string mode;
  std::string weight, bias;
  std::string snapshot;
};

void AddCreate(CLI::App& app, Invocation& invocation) {
  CLI::App* create = AddCommand(app, "create", "Opens a session: one batch-norm layer. Prints its name.",
                                "normctl create encoder/bn3 --num-features 64 --momentum 0.01 --label team=vision");
  const auto options = std::make_shared<CreateOptions>();
  CreateOptions& c = *options;
  create->add_option("name", c.name, "segments joined by '/'; left out: the server makes one")->type_name("NAME");
  create->add_option("--num-features", c.num_features, "channels, C")->required()->type_name("C");
  create->add_option("--epsilon", c.epsilon, "added to the variance; default 1e-5")->type_name("E");
  create->add_option("--momentum", c.momentum, "weight of the newest batch; default 0.1")->type_name("M");
  create->add_option("--convention", c.convention, "pytorch (default), keras, flax or onnx: other defaults")
      ->check(IsConvention());
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
      ->check(IsDurability());
  AddLabels(create, c.labels, "a word of yours about it, to list it by; may be repeated");
  create->add_option("--mode", c.mode, "train (default), eval or shadow")->check(IsMode());
  create->add_option("--weight", c.weight, ".npy, float32, [C]; default 1")->type_name("FILE");
  create->add_option("--bias", c.bias, ".npy, float32, [C]; default 0")->type_name("FILE");
  create->add_option("--running-mean", c.running_mean, ".npy, float32 or float64, [C]; default 0")->type_name("FILE");
  create->add_option("--running-var", c.running_var, ".npy, float32 or float64, [C]; default 1")->type_name("FILE");
  SetRun(create, invocation, [options](const CommandLine& line) { return Create(line, *options); });
}

void AddSnapshot(CLI::App* command, std::string& snapshot) {
  command->add_option("name", snapshot, "name of the snapshot, one segment")->required()->type_name("NAME");
}

}  // namespace

void AddSessionCommands(CLI::App& app, Invocation& invocation) {
  AddCreate(app, invocation);
  const auto given = std::make_shared<Given>();

  CLI::App* list = AddCommand(app, "list", "Lists the sessions, all or those under a prefix or with labels.",
                              "normctl list resnet50/ --label team=vision");
  list->add_option("prefix", given->list.prefix, "whole segments, such as resnet50/")->type_name("PREFIX");
  AddLabels(list, given->list.labels, "only sessions with this label; repeated: with all of them");
  SetRun(list, invocation, [given](const CommandLine& line) { return List(line, given->list); });

  CLI::App* show = AddCommand(app, "show", "Shows everything about a session.", "normctl show encoder/bn3");
  AddSession(show, given->session);
  SetRun(show, invocation, [given](const CommandLine& line) { return Show(line, given->session); });

  CLI::App* clone = AddCommand(app, "clone", "Copies a session as copy.deepcopy does. Prints the copy's name.",
                               "normctl clone encoder/bn3 encoder/bn3-before");
  AddSession(clone, given->session);
  clone->add_option("clone-name", given->clone_name, "left out: the server makes one")->type_name("NAME");
  SetRun(clone, invocation,
         [given](const CommandLine& line) { return Clone(line, given->session, given->clone_name); });

  CLI::App* remove = AddCommand(app, "delete", "Forgets a session and its snapshots.",
                                "normctl delete encoder/bn3\n         normctl delete encoder/");
  AddNamed(remove, given->session);
  SetRun(remove, invocation, [given](const CommandLine& line) { return Delete(line, given->session); });

  CLI::App* mode =
      AddCommand(app, "mode", "Sets what a forward that says nothing does, as module.train() and eval() do.",
                 "normctl mode encoder/bn3 eval\n         normctl mode encoder/ eval");
  AddNamed(mode, given->session);
  mode->add_option("mode", given->mode, "train, eval or shadow")->required()->check(IsMode());
  SetRun(mode, invocation, [given](const CommandLine& line) { return SetMode(line, given->session, given->mode); });

  CLI::App* parameters = AddCommand(app, "parameters", "Replaces a session's weight (gamma), bias (beta) or both.",
                                    "normctl parameters encoder/bn3 --weight gamma.npy");
  AddSession(parameters, given->session);
  CLI::Option_group* replaced = parameters->add_option_group("what is replaced");
  replaced->add_option("--weight", given->weight, ".npy, float32, [C]; left out: stays")->type_name("FILE");
  replaced->add_option("--bias", given->bias, ".npy, float32, [C]; left out: stays")->type_name("FILE");
  replaced->require_option(1, 2);
  SetRun(parameters, invocation,
         [given](const CommandLine& line) { return SetParameters(line, given->session, given->weight, given->bias); });
}

void AddSnapshotCommands(CLI::App& app, Invocation& invocation) {
  const auto given = std::make_shared<Given>();
  CLI::App* take = AddCommand(app, "snapshot", "Keeps a session's state under a name.",
                              "normctl snapshot encoder/bn3 before-tuning");
  AddNamed(take, given->session);
  AddSnapshot(take, given->snapshot);
  SetRun(take, invocation,
         [given](const CommandLine& line) { return TakeSnapshot(line, given->session, given->snapshot); });

  CLI::App* restore = AddCommand(app, "restore", "Takes a session back to a snapshot, which stays.",
                                 "normctl restore encoder/bn3 before-tuning");
  AddNamed(restore, given->session);
  AddSnapshot(restore, given->snapshot);
  SetRun(restore, invocation,
         [given](const CommandLine& line) { return Restore(line, given->session, given->snapshot); });

  CLI::App* list = AddCommand(app, "snapshots", "Lists a session's snapshots.",
                              "normctl snapshots encoder/bn3\n         normctl snapshots encoder/");
  AddNamed(list, given->session);
  SetRun(list, invocation, [given](const CommandLine& line) { return ListSnapshots(line, given->session); });

  CLI::App* remove = AddCommand(app, "delete-snapshot", "Forgets one snapshot of a session.",
                                "normctl delete-snapshot encoder/bn3 before-tuning");
  AddNamed(remove, given->session);
  AddSnapshot(remove, given->snapshot);
  SetRun(remove, invocation,
         [given](const CommandLine& line) { return DeleteSnapshot(line, given->session, given->snapshot); });
}

}  // namespace normserve::cli
