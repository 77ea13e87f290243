#include "client/cli/forward_command.h"

#include <cstdio>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/cli/npy.h"
#include "client/cli/output_file.h"
#include "client/cli/session_text.h"

namespace normserve::cli {
namespace {

using client::ForwardResult;

client::ForwardOptions MakeOptions(const ForwardCommandOptions& options) {
  client::ForwardOptions forward{.mode = ModeOf(options.mode), .return_batch_moments = options.moments};
  if (options.normalize_with == "batch") forward.normalize_with = client::UseBatch();
  if (options.normalize_with == "running") forward.normalize_with = client::UseRunning();
  if (!options.snapshot.empty() && options.batch_weight.has_value()) {
    forward.normalize_with = client::UseBlend{.snapshot = options.snapshot, .batch_weight = options.batch_weight};
  } else if (!options.snapshot.empty()) {
    forward.normalize_with = client::UseSnapshot{options.snapshot};
  }
  if (options.update == "none") forward.update = client::Update::kNone;
  if (options.update == "running") forward.update = client::Update::kRunning;
  if (options.update == "shadow") forward.update = client::Update::kShadow;
  return forward;
}

const char* NormalizedWithName(client::NormalizedWith with) {
  switch (with) {
    case client::NormalizedWith::kBatch:
      return "batch";
    case client::NormalizedWith::kRunning:
      return "running";
    case client::NormalizedWith::kGiven:
      return "given";
    case client::NormalizedWith::kSnapshot:
      return "snapshot";
    case client::NormalizedWith::kBlend:
      return "blend";
    case client::NormalizedWith::kUnspecified:
      break;
  }
  return "unknown";
}

// m2 / (count - less), per channel; empty where that divides by zero.
std::vector<double> Variances(const client::Moments& moments, int64_t less) {
  std::vector<double> variances;
  if (moments.count <= less) return variances;
  for (const double m2 : moments.m2) variances.push_back(m2 / static_cast<double>(moments.count - less));
  return variances;
}

std::string Text(const ForwardResult& result, double sum, double mean) {
  std::string text = absl::StrFormat("[%s]  sum %.7g  mean %.7g  normalised with %s  generation %d%s\n",
                                     absl::StrJoin(result.output.shape, ", "), sum, mean,
                                     NormalizedWithName(result.normalized_with), result.generation,
                                     result.update == client::Update::kRunning  ? " (statistics updated)"
                                     : result.update == client::Update::kShadow ? " (shadow moments updated)"
                                                                                : " (nothing updated)");
  if (result.batch_moments.has_value()) {
    const client::Moments& moments = *result.batch_moments;
    absl::StrAppendFormat(&text, "\nmoments of the batch, %d values a channel; variance is m2/n, unbiased m2/(n-1)\n",
                          moments.count);
    absl::StrAppend(&text, ChannelTable(0, {{"mean", moments.mean},
                                            {"m2", moments.m2},
                                            {"variance", Variances(moments, 0)},
                                            {"unbiased", Variances(moments, 1)}}));
  }
  return text;
}

std::string Json(const ForwardResult& result, double sum, double mean) {
  nlohmann::ordered_json json = {{"shape", result.output.shape},
                                 {"sum", sum},
                                 {"mean", mean},
                                 {"normalized_with", NormalizedWithName(result.normalized_with)},
                                 {"updated", result.update == client::Update::kRunning},
                                 {"generation", result.generation},
                                 {"snapshot_generation", result.snapshot_generation},
                                 {"num_batches_tracked", result.num_batches_tracked},
                                 {"uid", result.uid},
                                 {"durability", DurabilityName(result.durability)}};
  if (result.batch_moments.has_value()) {
    json["batch_moments"] = {
        {"count", result.batch_moments->count}, {"mean", result.batch_moments->mean}, {"m2", result.batch_moments->m2}};
  }
  return json.dump() + "\n";
}

// `status` of a file, and what it does not undo: the call that gave `result`.
absl::Status AfterTheCall(const absl::Status& status, const ForwardResult& result) {
  if (result.update != client::Update::kRunning) return status;
  return absl::Status(status.code(),
                      absl::StrCat(status.message(), "; the running statistics were updated (generation ",
                                   result.generation, "): the same command would update them again"));
}

}  // namespace

int Forward(const CommandLine& command_line, const ForwardCommandOptions& options) {
  absl::StatusOr<client::Tensor> input = ReadNpyTensor(options.input);
  if (!input.ok()) return Fail(command_line, input.status());
  if (options.channels_last) input->layout = client::Layout::kChannelsLast;
  // Before the call: one that trains must not be made only to lose its result.
  std::optional<absl::StatusOr<OutputFile>> output;
  if (!options.output.empty()) {
    output.emplace(OutputFile::Open(options.output));
    if (!output->ok()) return Fail(command_line, output->status());
  }
  absl::StatusOr<client::Client> client = MakeClient(command_line);
  if (!client.ok()) return Fail(command_line, client.status());
  absl::StatusOr<ForwardResult> result = client->Attach(options.session).Forward(*input, MakeOptions(options));
  if (!result.ok()) return Fail(command_line, result.status());
  if (output.has_value()) {
    if (absl::Status status = (*output)->Write(EncodeNpy(result->output)); !status.ok()) {
      return Fail(command_line, AfterTheCall(status, *result));
    }
  }
  const std::vector<float>& values = result->output.values;
  const double sum = std::accumulate(values.begin(), values.end(), 0.0);
  const double mean = values.empty() ? 0.0 : sum / static_cast<double>(values.size());
  const std::string text = command_line.json ? Json(*result, sum, mean) : Text(*result, sum, mean);
  std::fwrite(text.data(), 1, text.size(), stdout);
  return kOk;
}

}  // namespace normserve::cli
