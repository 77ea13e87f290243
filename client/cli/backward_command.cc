#include "client/cli/backward_command.h"

#include <cstdio>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/cli/npy.h"
#include "client/cli/output_file.h"
#include "client/cli/session_text.h"

namespace normserve::cli {
namespace {

using client::BackwardResult;

std::string Text(const BackwardResult& result, double sum) {
  std::string text =
      absl::StrFormat("[%s]  sum of grad_input %.7g\n", absl::StrJoin(result.grad_input.shape, ", "), sum);
  if (result.grad_weight.empty()) return text;
  return text + "\n" +
         ChannelTable(0, {{"grad_weight", {result.grad_weight.begin(), result.grad_weight.end()}},
                          {"grad_bias", {result.grad_bias.begin(), result.grad_bias.end()}}});
}

std::string Json(const BackwardResult& result, double sum) {
  nlohmann::ordered_json json = {{"shape", result.grad_input.shape}, {"grad_input_sum", sum}};
  if (!result.grad_weight.empty()) {
    json["grad_weight"] = result.grad_weight;
    json["grad_bias"] = result.grad_bias;
  }
  return json.dump() + "\n";
}

}  // namespace

int Backward(const CommandLine& command_line, const BackwardCommandOptions& options) {
  absl::StatusOr<client::Tensor> input = ReadNpyTensor(options.input);
  if (!input.ok()) return Fail(command_line, input.status());
  absl::StatusOr<client::Tensor> grad_output = ReadNpyTensor(options.grad_output);
  if (!grad_output.ok()) return Fail(command_line, grad_output.status());
  if (options.channels_last) input->layout = grad_output->layout = client::Layout::kChannelsLast;
  std::optional<absl::StatusOr<OutputFile>> output;
  if (!options.output.empty()) {
    output.emplace(OutputFile::Open(options.output));
    if (!output->ok()) return Fail(command_line, output->status());
  }
  absl::StatusOr<client::Client> client = MakeClient(command_line);
  if (!client.ok()) return Fail(command_line, client.status());
  const client::BatchNorm session = client->Attach(options.session);
  const auto forward = session.Forward(
      *input, {.mode = ModeOf(options.mode), .update = client::Update::kNone, .save_for_backward = true});
  if (!forward.ok()) return Fail(command_line, forward.status());
  const absl::StatusOr<BackwardResult> result =
      session.Backward(*grad_output, *forward->saved, *input, {.release = true});
  if (!result.ok()) return Fail(command_line, result.status());
  if (output.has_value()) {
    const absl::Status status = (*output)->Write(EncodeNpy(result->grad_input));
    if (!status.ok()) return Fail(command_line, status);
  }
  const std::vector<float>& values = result->grad_input.values;
  const double sum = std::accumulate(values.begin(), values.end(), 0.0);
  const std::string text = command_line.json ? Json(*result, sum) : Text(*result, sum);
  std::fwrite(text.data(), 1, text.size(), stdout);
  return kOk;
}

}  // namespace normserve::cli
