#include "server/rpc/checkpoint_messages.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "kernels/error_reason.h"
#include "server/checkpoint/folding.h"
#include "server/rpc/config_message.h"
#include "server/rpc/session_messages.h"
#include "server/session/field_error.h"
#include "server/session/layer_name.h"
#include "server/session/session_errors.h"
#include "server/session/session_name.h"
#include "server/session/statistics_convention.h"

namespace normserve {
namespace {

// What a batch had, by which a variance is converted.
absl::Status CheckValuesPerChannel(int64_t count) {
  if (count == 0 || count >= 2) return absl::OkStatus();
  return FieldError("values_per_channel",
                    absl::StrCat("values_per_channel is ", count, ": send 2 or more, or 0 where it is not known"));
}

absl::StatusOr<ExistingSession> ReadExisting(int existing) {
  switch (existing) {
    case v1::EXISTING_SESSION_UNSPECIFIED:
    case v1::EXISTING_SESSION_REFUSE:
      return ExistingSession::kRefuse;
    case v1::EXISTING_SESSION_REPLACE:
      return ExistingSession::kReplace;
    case v1::EXISTING_SESSION_SKIP:
      return ExistingSession::kSkip;
    default:
      return FieldError("existing", absl::StrCat("existing is ", existing,
                                                 ": send EXISTING_SESSION_REFUSE (1), _REPLACE (2) or _SKIP (3)"));
  }
}

v1::ImportAction WriteAction(ImportAction action) {
  return action == ImportAction::kCreated    ? v1::IMPORT_ACTION_CREATED
         : action == ImportAction::kReplaced ? v1::IMPORT_ACTION_REPLACED
                                             : v1::IMPORT_ACTION_SKIPPED;
}

// Of a model or of a session.
absl::Status CheckTarget(const std::string& name) { return CheckSessionName("name", absl::StripSuffix(name, "/")); }

// With its '.' at the end; empty: none.
absl::StatusOr<std::string> ReadPrefix(const std::string& prefix) {
  constexpr size_t kMaxPrefixBytes = 255;
  const bool printable = std::all_of(prefix.begin(), prefix.end(),
                                     [](char c) { return absl::ascii_isprint(static_cast<unsigned char>(c)); });
  if (prefix.size() > kMaxPrefixBytes || !printable) {
    return FieldError("prefix", absl::StrCat("prefix has ", prefix.size(), " bytes",
                                             printable ? "" : ", not all of them printable ASCII", ": send up to ",
                                             kMaxPrefixBytes, " characters of printable ASCII"));
  }
  return prefix.empty() ? "" : absl::StrCat(absl::StripSuffix(prefix, "."), ".");
}

// What is asked for of every layer.
struct Wanted {
  std::optional<Convention> convention;
  int64_t values_per_channel = 0;
};

// The statistics of a session by the convention asked for; null where it has none.
absl::StatusOr<std::shared_ptr<const NormalizationStatistics>> StatisticsOf(const Session& session,
                                                                            const SessionState& state,
                                                                            const Wanted& wanted) {
  if (state.running == nullptr || !wanted.convention.has_value()) return state.running;
  if (absl::Status status = CheckAveraging(session.name(), state.config, *wanted.convention); !status.ok())
    return status;
  auto converted = ConvertStatistics(session.name(), *state.running, state.config,
                                     {.from = state.config.running_variance,
                                      .to = ConventionDefaults(*wanted.convention).running_variance,
                                      .num_batches_tracked = state.num_batches_tracked,
                                      .values_per_channel = wanted.values_per_channel});
  if (!converted.ok()) return converted.status();
  return std::make_shared<const NormalizationStatistics>(*std::move(converted));
}

absl::StatusOr<Export> ExportFolded(const std::vector<OutgoingLayer>& layers, v1::ExportSummary summary) {
  std::vector<CheckpointWriter::ScaleAndShift> folded;
  for (size_t i = 0; i < layers.size(); ++i) {
    const OutgoingLayer& layer = layers[i];
    if (layer.statistics == nullptr) return NotTracked("folded", layer.session);
    auto& described = *summary.mutable_layers(static_cast<int>(i));
    auto one = FoldLayer(layer.session, *layer.parameters, *layer.statistics, described.epsilon());
    if (!one.ok()) return one.status();
    described.set_folded_error_bound(one->output_error_bound);
    folded.push_back({.path = layer.path,
                      .scale = std::make_shared<const std::vector<float>>(std::move(one->scale)),
                      .shift = std::make_shared<const std::vector<float>>(std::move(one->shift))});
  }
  return Export{.writer = CheckpointWriter::ForFolded(folded), .summary = std::move(summary)};
}

absl::StatusOr<Export> ExportWhole(const std::vector<OutgoingLayer>& layers, v1::ExportSummary summary) {
  auto writer = CheckpointWriter::ForLayers(layers);
  if (!writer.ok()) return writer.status();
  for (size_t i = 0; i < layers.size(); ++i) {
    summary.mutable_layers(static_cast<int>(i))->set_largest_relative_error(writer->rounding().of_layers[i]);
  }
  summary.set_largest_relative_error(writer->rounding().largest);
  return Export{.writer = *std::move(writer), .summary = std::move(summary)};
}

absl::Status CheckPaths(const std::vector<OutgoingLayer>& layers) {
  std::vector<const OutgoingLayer*> by_path;
  for (const OutgoingLayer& layer : layers) by_path.push_back(&layer);
  std::sort(by_path.begin(), by_path.end(), [](const auto* a, const auto* b) { return a->path < b->path; });
  const auto twice = std::adjacent_find(by_path.begin(), by_path.end(),
                                        [](const auto* a, const auto* b) { return a->path == b->path; });
  if (twice == by_path.end()) return absl::OkStatus();
  return MakeError(
      absl::StatusCode::kFailedPrecondition, ErrorReason::kInvalidField,
      absl::StrCat("sessions \"", twice[0]->session, "\" and \"", twice[1]->session, "\" are both \"", twice[0]->path,
                   "\" in a file, which has '.' for '/': export a longer prefix, or one of them"),
      {{"field", "name"}, {"session", twice[1]->session}});
}

}  // namespace

absl::StatusOr<ImportDraft> ReadImportBegin(const v1::ImportBegin& begin) {
  ImportDraft draft{.name = begin.name(), .request_id = begin.request_id()};
  absl::Status status = CheckTarget(begin.name());
  if (status.ok()) status = CheckGuardFields({.request_id = begin.request_id()});
  if (status.ok()) status = ReadPrefix(begin.prefix()).status();
  if (!status.ok()) return status;
  if (begin.config().num_features() != 0) {
    return FieldError("config.num_features", absl::StrCat("config.num_features is ", begin.config().num_features(),
                                                          ": leave it out, as the file has it"));
  }
  if (begin.config().has_track_running_stats() && !begin.config().track_running_stats()) {
    return FieldError("config.track_running_stats",
                      "config.track_running_stats is false, but what is imported are running statistics: leave it out");
  }
  const auto existing = ReadExisting(begin.existing());
  if (!existing.ok()) return existing.status();
  draft.existing = *existing;
  const auto mode = ReadMode(begin.mode());
  if (!mode.ok()) return mode.status();
  draft.mode = mode->value_or(Mode::kEval);
  auto config = ReadConfig(begin.config());
  if (!config.ok()) return config.status();
  draft.config = *std::move(config);
  if (begin.config().has_affine()) draft.affine = begin.config().affine();
  const auto durability = ReadDurability(begin.config().durability());
  if (!durability.ok()) return durability.status();
  draft.durability = *durability;
  const auto kept_by = ReadConvention("kept_by", begin.kept_by());
  if (!kept_by.ok()) return kept_by.status();
  if (kept_by->has_value()) draft.kept_variance = ConventionDefaults(**kept_by).running_variance;
  if (absl::Status status = CheckValuesPerChannel(begin.values_per_channel()); !status.ok()) return status;
  draft.values_per_channel = begin.values_per_channel();
  draft.check_existing = [message = begin.config()](const std::string& name, const SessionConfig& there) {
    return CheckConfigIs(message, name, there);
  };
  return draft;
}

absl::Status AddLayers(Checkpoint checkpoint, ImportDraft& draft) {
  for (CheckpointLayer& layer : checkpoint.layers) {
    auto name = SessionNameOfLayer(draft.name, layer.path);
    if (!name.ok()) return name.status();
    draft.layers.push_back({.name = *std::move(name),
                            .parameters = std::move(layer.parameters),
                            .statistics = std::move(layer.statistics),
                            .num_batches_tracked = layer.num_batches_tracked});
  }
  std::sort(draft.layers.begin(), draft.layers.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  return absl::OkStatus();
}

void WriteImported(const std::vector<ImportedSession>& sessions, const Checkpoint& read, v1::ImportStateReply& reply) {
  for (const ImportedSession& session : sessions) {
    v1::ImportedSession& message = *reply.add_sessions();
    message.set_name(session.name);
    message.set_uid(session.uid);
    message.set_generation(session.generation);
    message.set_num_features(session.num_features);
    message.set_num_batches_tracked(session.num_batches_tracked);
    message.set_action(WriteAction(session.action));
  }
  for (const SkippedTensor& skipped : read.skipped) {
    v1::SkippedTensor& message = *reply.add_skipped();
    message.set_name(skipped.name);
    message.set_reason(skipped.reason);
  }
  reply.set_num_skipped(read.num_skipped);
  reply.set_largest_parameter_rounding(read.largest_parameter_rounding);
}

absl::StatusOr<Export> MakeExport(const v1::ExportStateRequest& request,
                                  const std::vector<std::shared_ptr<Session>>& sessions,
                                  const std::vector<SessionContent>& contents) {
  if (request.format() != v1::EXPORT_FORMAT_UNSPECIFIED && request.format() != v1::EXPORT_FORMAT_SAFETENSORS) {
    return FieldError("format", absl::StrCat("format is ", request.format(), ": send EXPORT_FORMAT_SAFETENSORS (1)"));
  }
  const auto convention = ReadConvention("convention", request.convention());
  if (!convention.ok()) return convention.status();
  const auto prefix = ReadPrefix(request.prefix());
  if (!prefix.ok()) return prefix.status();
  if (absl::Status status = CheckValuesPerChannel(request.values_per_channel()); !status.ok()) return status;
  const Wanted wanted{.convention = *convention, .values_per_channel = request.values_per_channel()};
  v1::ExportSummary summary;
  std::vector<OutgoingLayer> layers;
  for (size_t i = 0; i < sessions.size(); ++i) {
    const Session& session = *sessions[i];
    const SessionState& state = *contents[i].state;
    auto statistics = StatisticsOf(session, state, wanted);
    if (!statistics.ok()) return statistics.status();
    const std::string path = absl::StrCat(*prefix, PathOfLayer(request.name(), session.name()));
    layers.push_back({.session = session.name(),
                      .path = std::string(absl::StripSuffix(path, ".")),
                      .parameters = state.config.affine || request.folded() ? state.parameters : nullptr,
                      .statistics = *std::move(statistics),
                      .num_batches_tracked = state.num_batches_tracked});
    v1::ExportedLayer& layer = *summary.add_layers();
    layer.set_name(session.name());
    layer.set_uid(session.uid());
    layer.set_generation(state.generation);
    layer.set_path(layers.back().path);
    layer.set_num_features(state.config.num_features);
    layer.set_epsilon(state.config.epsilon);
    const auto momentum = MomentumIn(convention->value_or(state.config.convention), state.config);
    if (momentum.has_value()) layer.set_momentum(*momentum);
  }
  if (absl::Status status = CheckPaths(layers); !status.ok()) return status;
  auto made = request.folded() ? ExportFolded(layers, std::move(summary)) : ExportWhole(layers, std::move(summary));
  if (made.ok()) made->summary.set_size_bytes(made->writer.size_bytes());
  return made;
}

}  // namespace normserve
