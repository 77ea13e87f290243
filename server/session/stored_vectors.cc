#include "server/session/stored_vectors.h"

#include <utility>

#include "server/session/records.h"

namespace normserve {
namespace {

bool HasLength(const AffineParameters& parameters, size_t length) {
  return parameters.weight.size() == length && parameters.bias.size() == length;
}

bool HasLength(const NormalizationStatistics& statistics, size_t length) {
  return statistics.mean.size() == length && statistics.variance.size() == length;
}

bool HasLength(const Moments& moments, size_t length) {
  return moments.mean.size() == length && moments.m2.size() == length;
}

constexpr absl::string_view kParametersPart = "weight and bias";
constexpr absl::string_view kRunningPart = "running statistics";
constexpr absl::string_view kShadowPart = "shadow moments";

template <typename T>
absl::Status Take(const StoredPart& part, absl::StatusOr<T> read, int64_t version, size_t length,
                  std::map<int64_t, std::shared_ptr<const T>>& vectors) {
  if (!read.ok()) return read.status();
  if (!HasLength(*read, length)) return StoredDataLost(part, "it is not of the session's length");
  vectors[version] = std::make_shared<const T>(*std::move(read));
  return absl::OkStatus();
}

}  // namespace

absl::Status ReadVector(const StoredPart& session, const StoredVector& vector, size_t length, StoredVectors& vectors) {
  const int64_t version = vector.version;
  switch (vector.kind) {
    case VectorKind::kParameters: {
      const StoredPart part = session.Of(kParametersPart);
      return Take(part, ReadParameters(part, vector.data), version, length, vectors.parameters);
    }
    case VectorKind::kRunning: {
      const StoredPart part = session.Of(kRunningPart);
      return Take(part, ReadStatistics(part, vector.data), version, length, vectors.running);
    }
    case VectorKind::kShadow: {
      const StoredPart part = session.Of(kShadowPart);
      return Take(part, ReadMoments(part, vector.data), version, length, vectors.shadow);
    }
  }
  return StoredDataLost(session.Of("vectors"), "the kind of one is not known");
}

absl::Status FillIn(const StoredPart& session, const StoredVectors& vectors, int64_t shadow_version,
                    SessionState& state, Observations& observations) {
  constexpr absl::string_view kMissing = "it is missing";
  state.parameters = OfVersion(vectors.parameters, state.parameters_version);
  if (state.parameters == nullptr) return StoredDataLost(session.Of(kParametersPart), kMissing);
  if (state.config.track_running_stats) {
    state.running = OfVersion(vectors.running, state.running_version);
    if (state.running == nullptr) return StoredDataLost(session.Of(kRunningPart), kMissing);
  }
  const int64_t there = vectors.shadow.empty() ? kNoVersion : vectors.shadow.rbegin()->first;
  if (shadow_version != kNotRecorded && shadow_version != there) {
    return StoredDataLost(session.Of(kShadowPart),
                          there == kNoVersion ? kMissing : "those of another change are there");
  }
  if (there != kNoVersion) {
    observations.shadow = vectors.shadow.rbegin()->second;
    observations.shadow_version = there;
  }
  return absl::OkStatus();
}

void FillIn(const StoredVectors& vectors, ForwardAnswer& answer) {
  answer.parameters = OfVersion(vectors.parameters, answer.parameters_version);
  if (answer.running_version == kNoVersion) return;
  answer.running = OfVersion(vectors.running, answer.running_version);
  if (answer.running == nullptr) answer.parameters.reset();
}

}  // namespace normserve
