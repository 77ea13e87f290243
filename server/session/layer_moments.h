// Moments that a request brings for a session or for layers of a model, and the sessions that they are of.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/batch_norm.h"
#include "server/session/session.h"

namespace normserve {

// The moments of one request or part: of a single session, or by layer, which is a session's name without the model's
// prefix. At most one of the two is set.
struct GivenMoments {
  std::optional<Moments> moments;
  std::optional<std::map<std::string, Moments>> layers;

  bool empty() const { return !moments.has_value() && !layers.has_value(); }
};

// OK for moments of data of `num_features` channels. INVALID_ARGUMENT that names `field`, channel, value and what would
// be right: (INVALID_FIELD) a count below 1 or above 2^53, num_samples as CheckNumSamples, a negative m2, an m2 above 0
// of one value; (SHAPE_MISMATCH) another length; (NON_FINITE).
absl::Status CheckMoments(absl::string_view field, const Moments& moments, int64_t num_features);

// INVALID_ARGUMENT (INVALID_FIELD) for fewer than no samples, or more than values a channel.
absl::Status CheckNumSamples(absl::string_view field, const Moments& moments);

// What one session is given.
struct MomentsOfSession {
  std::shared_ptr<Session> session;
  std::shared_ptr<const Moments> moments;
};

// Of each of `sessions`, which `name` speaks of, that is given some, in their order. `field` is where `given` came from
// ("" or "parts[0]."). INVALID_ARGUMENT as CheckMoments, and (INVALID_FIELD): layers for a session, moments for a
// model, no layer at all, or a layer that is no session.
absl::StatusOr<std::vector<MomentsOfSession>> MatchMoments(absl::string_view field, absl::string_view name,
                                                           const std::vector<std::shared_ptr<Session>>& sessions,
                                                           GivenMoments given);

// Adds them to a request's fingerprint.
void AddMoments(const Moments& moments, FingerprintBuilder& fingerprint);
void AddMoments(const GivenMoments& given, FingerprintBuilder& fingerprint);

}  // namespace normserve
