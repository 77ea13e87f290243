#include "server/session/session_diagnosis.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "kernels/error_reason.h"
#include "server/moments/part_set.h"
#include "server/session/field_error.h"
#include "server/session/layer_moments.h"
#include "server/session/session_report.h"
#include "server/session/statistics_convention.h"

namespace normserve {
namespace {

DiagnosedLayer LayerOf(const SessionState& state, int64_t samples_per_batch) {
  const SessionConfig& config = state.config;
  DiagnosedLayer layer{.num_features = static_cast<size_t>(config.num_features),
                       .statistics = StatisticsOf(state),
                       .average = AverageOf(config),
                       .running_variance_biased = config.running_variance == RunningVariance::kBiased,
                       .samples_per_batch = samples_per_batch};
  if (state.statistics_set_at != kNeverSet) {
    layer.batches_since_set = std::max<int64_t>(0, state.num_batches_tracked - state.statistics_set_at);
  }
  return layer;
}

// As moments of data are: any count but a negative one, a value a channel, no negative sum of squares.
absl::Status CheckEvidence(const std::string& field, const Moments& moments, int64_t num_features) {
  if (moments.count < 1 || moments.count > kMaxCount) {
    return FieldError(absl::StrCat(field, ".count"),
                      absl::StrCat(field, ".count is ", moments.count, ": send the values a channel, 1 up to 2^53"));
  }
  if (absl::Status status = CheckNumSamples(field, moments); !status.ok()) return status;
  const auto length = static_cast<size_t>(num_features);
  for (const auto& [name, values] : {std::pair{"mean", &moments.mean}, std::pair{"m2", &moments.m2}}) {
    if (values->size() == length) continue;
    return MakeError(absl::StatusCode::kInvalidArgument, ErrorReason::kShapeMismatch,
                     absl::StrCat(field, ".", name, " has ", values->size(), " values, the session has ", num_features,
                                  " channels: send one a channel"),
                     {{"field", absl::StrCat(field, ".", name)}});
  }
  for (size_t c = 0; c < length; ++c) {
    if (moments.m2[c] < 0) {
      return FieldError(absl::StrCat(field, ".m2"),
                        absl::StrCat(field, ".m2[", c, "] is ", moments.m2[c], ": a sum of squares is zero or more"));
    }
    if (moments.count == 1 && moments.m2[c] > 0) {
      return FieldError(absl::StrCat(field, ".m2"), absl::StrCat(field, ".m2[", c, "] is ", moments.m2[c],
                                                                 ": one value a channel lies at its mean, send 0"));
    }
  }
  return absl::OkStatus();
}

// Of each session what it is compared with; null: nothing.
absl::StatusOr<std::vector<const Moments*>> EvidenceOf(const std::vector<std::shared_ptr<Session>>& sessions,
                                                       const std::vector<SessionContent>& contents,
                                                       const DiagnoseRequest& request) {
  const bool is_model = absl::EndsWith(request.name, "/");
  if (request.moments.has_value() && is_model) {
    return FieldError("moments", absl::StrCat("moments are of one layer, and \"", request.name,
                                              "\" names a model: send layers, or name a session"));
  }
  if (request.layers.has_value() && !is_model) {
    return FieldError("layers",
                      absl::StrCat("layers are of a model, and \"", request.name,
                                   "\" names a session: send moments, or name the model with a '/' at its end"));
  }
  std::vector<const Moments*> evidence;
  size_t num_used = 0;
  for (size_t i = 0; i < sessions.size(); ++i) {
    const Observations& seen = contents[i].observations;
    const Moments* moments = request.observed ? seen.observed.get() : seen.last_batch.get();
    std::string field = "moments";
    if (request.moments.has_value()) moments = &*request.moments;
    if (request.layers.has_value()) {
      const std::string layer(absl::StripPrefix(sessions[i]->name(), request.name));
      const auto found = request.layers->find(layer);
      moments = found == request.layers->end() ? nullptr : &found->second;
      num_used += found != request.layers->end();
      field = absl::StrCat("layers[", layer, "].moments");
    }
    if (moments != nullptr && (request.moments.has_value() || request.layers.has_value())) {
      absl::Status status = CheckEvidence(field, *moments, contents[i].state->config.num_features);
      if (!status.ok()) return status;
    }
    evidence.push_back(moments);
  }
  if (request.layers.has_value() && num_used < request.layers->size()) {
    for (const auto& [layer, moments] : *request.layers) {
      bool is_known = false;
      for (const auto& session : sessions) is_known = is_known || session->name() == absl::StrCat(request.name, layer);
      if (is_known) continue;
      return FieldError("layers.layer", absl::StrCat("layers.layer is \"", layer, "\", and there is no session \"",
                                                     request.name, layer, "\": leave it out, or create it"));
    }
  }
  return evidence;
}

}  // namespace

absl::StatusOr<std::vector<SessionDiagnosis>> Diagnose(const std::vector<std::shared_ptr<Session>>& sessions,
                                                       const std::vector<SessionContent>& contents,
                                                       const DiagnoseRequest& request) {
  if (request.samples_per_batch < 0) {
    return FieldError("samples_per_batch", absl::StrCat("samples_per_batch is ", request.samples_per_batch,
                                                        ": send how many, or 0 if you do not know"));
  }
  const auto evidence = EvidenceOf(sessions, contents, request);
  if (!evidence.ok()) return evidence.status();
  std::vector<LayerDiagnosis> layers;
  for (size_t i = 0; i < sessions.size(); ++i) {
    const Moments* moments = (*evidence)[i];
    const Observations& seen = contents[i].observations;
    auto layer_of = LayerOf(*contents[i].state, request.samples_per_batch);
    layer_of.batch_is_folded =
        moments != nullptr && moments == seen.last_batch.get() && layer_of.batches_since_set != 0;
    // The batches before the one that is the evidence, which may be the newest of them.
    const auto recent = RecentBatches(seen.history.get());
    std::vector<const Moments*> earlier;
    for (const auto& batch : recent) {
      if (batch.get() != moments) earlier.push_back(batch.get());
    }
    auto layer = DiagnoseLayer(layer_of, moments == nullptr ? Moments{} : *moments, earlier,
                               request.observed ? seen.observed_before.get() : nullptr);
    if (!layer.ok()) return layer.status();
    layers.push_back(*std::move(layer));
  }
  std::vector<SessionDiagnosis> diagnoses;
  for (const size_t i : RankWorstFirst(layers)) {
    diagnoses.push_back({.name = sessions[i]->name(),
                         .uid = sessions[i]->uid(),
                         .generation = contents[i].state->generation,
                         .batch_count = (*evidence)[i] == nullptr ? 0 : (*evidence)[i]->count,
                         .layer = std::move(layers[i])});
  }
  return diagnoses;
}

}  // namespace normserve
