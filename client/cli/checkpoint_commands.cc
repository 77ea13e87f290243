#include "client/cli/checkpoint_commands.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "client/cli/named.h"
#include "client/cli/output_file.h"
#include "client/cli/session_text.h"

namespace normserve::cli {
namespace {

using client::Client;
using client::ImportAction;
using nlohmann::ordered_json;

void Print(const std::string& text) { std::fwrite(text.data(), 1, text.size(), stdout); }

// Says how far a call is, once a second from the first second on.
client::Progress ProgressOnStderr(const char* what) {
  return [what, next = absl::Now() + absl::Seconds(1)](int64_t bytes, int64_t all_bytes) mutable {
    if (absl::Now() < next || all_bytes == 0) return;
    next = absl::Now() + absl::Seconds(1);
    absl::FPrintF(stderr, "%s %.1f of %.1f MB (%d %%)\n", what, static_cast<double>(bytes) / 1e6,
                  static_cast<double>(all_bytes) / 1e6, 100 * bytes / all_bytes);
  };
}

const char* ActionText(ImportAction action) {
  return action == ImportAction::kCreated    ? "created"
         : action == ImportAction::kReplaced ? "replaced"
         : action == ImportAction::kSkipped  ? "skipped"
                                             : "";
}

ordered_json ToJson(const client::ImportResult& result) {
  ordered_json layers = ordered_json::array(), skipped = ordered_json::array();
  for (const client::ImportedLayer& layer : result.layers) {
    layers.push_back({{"name", layer.name},
                      {"uid", layer.uid},
                      {"generation", layer.generation},
                      {"num_features", layer.num_features},
                      {"num_batches_tracked", layer.num_batches_tracked},
                      {"action", ActionText(layer.action)}});
  }
  for (const client::SkippedTensor& tensor : result.skipped) {
    skipped.push_back({{"name", tensor.name}, {"reason", tensor.reason}});
  }
  return {{"layers", std::move(layers)},
          {"skipped", std::move(skipped)},
          {"num_skipped", result.num_skipped},
          {"largest_parameter_rounding", result.largest_parameter_rounding}};
}

std::string ImportText(const client::ImportResult& result, const std::string& file) {
  int64_t counts[4] = {};
  std::string text;
  for (const client::ImportedLayer& layer : result.layers) {
    ++counts[static_cast<int>(layer.action)];
    absl::StrAppendFormat(&text, "%-8s %6d channels  %10d batches  %s\n", ActionText(layer.action), layer.num_features,
                          layer.num_batches_tracked, layer.name);
  }
  for (const client::SkippedTensor& tensor : result.skipped) {
    absl::StrAppend(&text, "left out ", tensor.name, ": ", tensor.reason, "\n");
  }
  absl::StrAppendFormat(&text, "%s: %d batch-norm layers: %d created, %d replaced, %d skipped\n", file,
                        result.layers.size(), counts[1], counts[2], counts[3]);
  if (result.largest_parameter_rounding > 0) {
    absl::StrAppendFormat(&text, "weight and bias are kept as float32: rounded by up to %.2g of themselves\n",
                          result.largest_parameter_rounding);
  }
  return text;
}

ordered_json ToJson(const client::Export& exported, const std::string& output) {
  ordered_json layers = ordered_json::array();
  for (const client::ExportedLayer& layer : exported.layers) {
    layers.push_back({{"name", layer.name},
                      {"uid", layer.uid},
                      {"generation", layer.generation},
                      {"path", layer.path},
                      {"num_features", layer.num_features},
                      {"epsilon", layer.epsilon},
                      {"momentum", layer.momentum.has_value() ? ordered_json(*layer.momentum) : ordered_json()},
                      {"largest_relative_error", layer.largest_relative_error},
                      {"folded_error_bound", layer.folded_error_bound}});
  }
  return {{"file", output}, {"layers", std::move(layers)}, {"largest_relative_error", exported.largest_relative_error}};
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::error_code error;
  const auto size_bytes = std::filesystem::file_size(path, error);
  if (!file || error) return absl::ErrnoToStatus(error ? error.value() : errno, absl::StrCat("cannot read ", path));
  std::string bytes(size_bytes, '\0');
  if (!file.read(bytes.data(), static_cast<std::streamsize>(size_bytes))) {
    return absl::DataLossError(absl::StrCat("cannot read all of ", path));
  }
  return bytes;
}

// The checkpoint with the layers in it. The file on disk stays as it is.
absl::StatusOr<std::string> Merged(const client::Export& exported, const std::string& checkpoint) {
  auto bytes = ReadFile(checkpoint);
  if (!bytes.ok()) return bytes.status();
  auto merged = client::MergeIntoCheckpoint(exported.file, *std::move(bytes));
  if (!merged.ok())
    return absl::Status(merged.status().code(), absl::StrCat(checkpoint, ": ", merged.status().message()));
  return merged;
}

}  // namespace

int Import(const CommandLine& command_line, const ImportCommandOptions& options) {
  absl::StatusOr<Client> client = MakeClient(command_line);
  if (!client.ok()) return Fail(command_line, client.status());
  const auto result = client->ImportState(options.name, options.file,
                                          {.prefix = options.prefix,
                                           .existing = options.existing == "replace" ? client::ExistingSession::kReplace
                                                       : options.existing == "skip"  ? client::ExistingSession::kSkip
                                                                                     : client::ExistingSession::kRefuse,
                                           .config = MakeConfig(options.create),
                                           .mode = ModeOf(options.create.mode),
                                           .kept_by = ConventionOf(options.kept_by),
                                           .values_per_channel = options.values_per_channel,
                                           .progress = ProgressOnStderr("sent")});
  if (absl::IsAlreadyExists(result.status()) || absl::IsInvalidArgument(result.status())) {
    const char* const advice = absl::IsAlreadyExists(result.status()) ? "; --existing replace or skip does that" : "";
    absl::Status status(result.status().code(), absl::StrCat(options.file, ": ", result.status().message(), advice));
    result.status().ForEachPayload(
        [&status](absl::string_view url, const absl::Cord& payload) { status.SetPayload(url, payload); });
    return Fail(command_line, status);
  }
  if (!result.ok()) return Fail(command_line, result.status());
  Print(command_line.json ? ToJson(*result).dump() + "\n" : ImportText(*result, options.file));
  return kOk;
}

int Export(const CommandLine& command_line, const ExportCommandOptions& options) {
  absl::StatusOr<Client> client = MakeClient(command_line);
  if (!client.ok()) return Fail(command_line, client.status());
  const client::ExportOptions asked{.prefix = options.prefix,
                                    .convention = ConventionOf(options.convention),
                                    .folded = options.folded,
                                    .values_per_channel = options.values_per_channel,
                                    .progress = ProgressOnStderr("received")};
  const auto exported = IsModel(options.name) ? client->AttachModel(options.name).Export(asked)
                                              : client->Attach(options.name).Export(asked);
  if (!exported.ok()) return Fail(command_line, exported.status());
  const auto bytes = options.into.empty() ? exported->file : Merged(*exported, options.into);
  if (!bytes.ok()) return Fail(command_line, bytes.status());
  absl::StatusOr<OutputFile> file = OutputFile::Open(options.output);
  if (!file.ok()) return Fail(command_line, file.status());
  if (absl::Status status = file->Write(*bytes); !status.ok()) return Fail(command_line, status);
  if (command_line.json) {
    Print(ToJson(*exported, options.output).dump() + "\n");
    return kOk;
  }
  if (options.folded) {
    double bound = 0;
    for (const client::ExportedLayer& layer : exported->layers) bound = std::max(bound, layer.folded_error_bound);
    Print(absl::StrFormat(
        "%s: %d batch-norm layers folded to scale and shift; in float32 an output is off by at most %.2g "
        "within 10 standard deviations\n",
        options.output, exported->layers.size(), bound));
    return kOk;
  }
  Print(absl::StrFormat("%s: %d batch-norm layers; float32 is off by up to %.2g of a statistic\n", options.output,
                        exported->layers.size(), exported->largest_relative_error));
  return kOk;
}

}  // namespace normserve::cli
