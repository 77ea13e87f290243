// normctl forward and backward.
#include <memory>

#include "client/cli/backward_command.h"
#include "client/cli/command_syntax.h"
#include "client/cli/forward_command.h"

namespace normserve::cli {
namespace {

void AddForward(CLI::App& app, Invocation& invocation) {
  CLI::App* forward =
      AddCommand(app, "forward", "Runs one batch through a session; in TRAIN mode this updates its running statistics.",
                 "normctl forward encoder/bn3 --input x.npy --output y.npy");
  const auto options = std::make_shared<ForwardCommandOptions>();
  ForwardCommandOptions& f = *options;
  AddSession(forward, f.session);
  forward->add_option("--input", f.input, ".npy, float32, C order, shape [N, C, ...]")->required()->type_name("FILE");
  forward->add_option("--output", f.output, "where the result goes as .npy; left out: nowhere")->type_name("FILE");
  forward->add_option("--mode", f.mode, "train, eval or shadow, for this call alone")->check(IsMode());
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
  SetRun(forward, invocation, [options](const CommandLine& line) { return Forward(line, *options); });
}

void AddBackward(CLI::App& app, Invocation& invocation) {
  CLI::App* backward =
      AddCommand(app, "backward", "Gives the gradients of a batch for the gradient of its output; changes nothing.",
                 "normctl backward encoder/bn3 --input x.npy --grad-output dy.npy --output dx.npy");
  const auto options = std::make_shared<BackwardCommandOptions>();
  BackwardCommandOptions& b = *options;
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
  SetRun(backward, invocation, [options](const CommandLine& line) { return Backward(line, *options); });
}

}  // namespace

void AddBatchCommands(CLI::App& app, Invocation& invocation) {
  AddForward(app, invocation);
  AddBackward(app, invocation);
}

}  // namespace normserve::cli
