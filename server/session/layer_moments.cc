#include "server/session/layer_moments.h"

#include <cmath>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "kernels/error_reason.h"
#include "server/moments/part_set.h"
#include "server/session/field_error.h"

namespace normserve {
namespace {

absl::Status MomentsError(ErrorReason reason, const std::string& field, absl::string_view message,
                          std::map<std::string, std::string> metadata = {}) {
  metadata["field"] = field;
  return MakeError(absl::StatusCode::kInvalidArgument, reason, message, std::move(metadata));
}

absl::Status CheckValues(const std::string& field, const std::vector<double>& values, int64_t num_features) {
  if (static_cast<int64_t>(values.size()) != num_features) {
    return MomentsError(ErrorReason::kShapeMismatch, field,
                        absl::StrCat(field, " has ", values.size(), " values, the session has ", num_features,
                                     " channels: send one a channel"));
  }
  for (size_t c = 0; c < values.size(); ++c) {
    if (std::isfinite(values[c])) continue;
    return MomentsError(ErrorReason::kNonFinite, field,
                        absl::StrCat(field, "[", c, "] is ", values[c], ": send finite values"),
                        {{"channel", absl::StrCat(c)}});
  }
  return absl::OkStatus();
}

absl::Status UnknownLayer(absl::string_view field, absl::string_view name, absl::string_view layer) {
  return FieldError(absl::StrCat(field, "layers.layer"),
                    absl::StrCat(field, "layers.layer is \"", layer, "\", and there is no session \"", name, layer,
                                 "\": leave it out, or create it"));
}

}  // namespace

absl::Status CheckNumSamples(absl::string_view field, const Moments& moments) {
  if (moments.num_samples >= 0 && moments.num_samples <= moments.count) return absl::OkStatus();
  const std::string samples = absl::StrCat(field, ".num_samples");
  return FieldError(samples,
                    absl::StrCat(samples, " is ", moments.num_samples, " and ", field, ".count ", moments.count,
                                 ": a sample has one value a channel or more; send how many samples the values "
                                 "are of, or 0 if you do not know"));
}

absl::Status CheckMoments(absl::string_view field, const Moments& moments, int64_t num_features) {
  if (moments.count < 1 || moments.count > kMaxCount) {
    const std::string count = absl::StrCat(field, ".count");
    return FieldError(count, absl::StrCat(count, " is ", moments.count,
                                          ": send the values a channel, 1 up to 2^53; "
                                          "leave out what has no data"));
  }
  absl::Status status = CheckValues(absl::StrCat(field, ".mean"), moments.mean, num_features);
  if (status.ok()) status = CheckNumSamples(field, moments);
  const std::string m2 = absl::StrCat(field, ".m2");
  if (status.ok()) status = CheckValues(m2, moments.m2, num_features);
  for (size_t c = 0; status.ok() && c < moments.m2.size(); ++c) {
    if (moments.m2[c] < 0) {
      status = FieldError(m2, absl::StrCat(m2, "[", c, "] is ", moments.m2[c], ": a sum of squares is zero or more"));
    } else if (moments.count == 1 && moments.m2[c] != 0) {
      status = FieldError(m2, absl::StrCat(m2, "[", c, "] is ", moments.m2[c],
                                           ": with count 1 it is 0 (is count the number of batches, not of values?)"));
    }
  }
  return status;
}

absl::StatusOr<std::vector<MomentsOfSession>> MatchMoments(absl::string_view field, absl::string_view name,
                                                           const std::vector<std::shared_ptr<Session>>& sessions,
                                                           GivenMoments given) {
  const bool is_model = absl::EndsWith(name, "/");
  if (given.moments.has_value() && is_model) {
    return FieldError(absl::StrCat(field, "moments"), absl::StrCat(field, "moments are of one layer, and \"", name,
                                                                   "\" names a model: send layers, or name a session"));
  }
  if (given.layers.has_value() && !is_model) {
    return FieldError(absl::StrCat(field, "layers"),
                      absl::StrCat(field, "layers are of a model, and \"", name,
                                   "\" names a session: send moments, or name the model with a '/' at its end"));
  }
  std::vector<MomentsOfSession> matched;
  if (given.moments.has_value()) {
    const int64_t num_features = sessions[0]->Snapshot()->config.num_features;
    absl::Status status = CheckMoments(absl::StrCat(field, "moments"), *given.moments, num_features);
    if (!status.ok()) return status;
    matched.push_back({sessions[0], std::make_shared<const Moments>(*std::move(given.moments))});
    return matched;
  }
  if (!given.layers.has_value()) return matched;
  if (given.layers->empty()) {
    return FieldError(absl::StrCat(field, "layers"),
                      absl::StrCat(field, "layers is empty: send the moments of one layer or more"));
  }
  std::map<std::string, Moments>& layers = *given.layers;
  for (const auto& session : sessions) {
    const auto layer = layers.find(session->name().substr(name.size()));
    if (layer == layers.end()) continue;
    absl::Status status = CheckMoments(absl::StrCat(field, "layers[", layer->first, "].moments"), layer->second,
                                       session->Snapshot()->config.num_features);
    if (!status.ok()) return status;
    matched.push_back({session, std::make_shared<const Moments>(std::move(layer->second))});
    layers.erase(layer);
  }
  if (!layers.empty()) return UnknownLayer(field, name, layers.begin()->first);
  return matched;
}

// Without num_samples: data are the same whoever knows how many samples they are of.
void AddMoments(const Moments& moments, FingerprintBuilder& fingerprint) {
  fingerprint.Add(moments.count).Add(absl::Span<const double>(moments.mean)).Add(absl::Span<const double>(moments.m2));
}

void AddMoments(const GivenMoments& given, FingerprintBuilder& fingerprint) {
  fingerprint.Add(static_cast<int64_t>(given.moments.has_value()));
  if (given.moments.has_value()) AddMoments(*given.moments, fingerprint);
  fingerprint.Add(given.layers.has_value() ? static_cast<int64_t>(given.layers->size()) : int64_t{-1});
  if (!given.layers.has_value()) return;
  for (const auto& [layer, moments] : *given.layers) {
    fingerprint.Add(absl::string_view(layer));
    AddMoments(moments, fingerprint);
  }
}

}  // namespace normserve
