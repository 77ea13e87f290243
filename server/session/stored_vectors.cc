#include "server/session/stored_vectors.h"

#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/session/records.h"

namespace normserve {
namespace {

absl::StatusOr<AffineParameters> ReadParameters(const StoredPart& what, absl::string_view record) {
  RecordReader from(record);
  AffineParameters parameters;
  parameters.weight = from.Vector<float>();
  parameters.bias = from.Vector<float>();
  return Finished(std::move(parameters), from, what);
}

absl::StatusOr<NormalizationStatistics> ReadStatistics(const StoredPart& what, absl::string_view record) {
  RecordReader from(record);
  NormalizationStatistics statistics;
  statistics.mean = from.Vector<double>();
  statistics.variance = from.Vector<double>();
  return Finished(std::move(statistics), from, what);
}

absl::StatusOr<Moments> ReadMoments(const StoredPart& what, absl::string_view record) {
  RecordReader from(record, kMomentsVersion);
  Moments moments = ReadMomentsFields(from);
  return Finished(std::move(moments), from, what);
}

absl::StatusOr<ObservedMoments> ReadObserved(const StoredPart& what, absl::string_view record) {
  RecordReader from(record, kMomentsVersion);
  ObservedMoments observed{.moments = ReadMomentsFields(from)};
  const auto words = from.Vector<uint64_t>();
  if (words.size() % 4 != 0) from.Spoil("a length in it is wrong");
  for (size_t i = 0; i + 4 <= words.size(); i += 4) {
    observed.parts.push_back({.id = {words[i], words[i + 1]}, .contents = {words[i + 2], words[i + 3]}});
  }
  return Finished(std::move(observed), from, what);
}

std::string WriteMoments(const Moments& moments) {
  RecordWriter to(kMomentsVersion);
  return WriteMomentsFields(moments, to).Finish();
}

std::string WriteObserved(const Moments& moments, const std::vector<ObservedPart>& parts) {
  std::vector<uint64_t> words;
  for (const ObservedPart& part : parts) {
    words.insert(words.end(), {part.id.low, part.id.high, part.contents.low, part.contents.high});
  }
  RecordWriter to(kMomentsVersion);
  return WriteMomentsFields(moments, to).Vector(words).Finish();
}

bool HasLength(const AffineParameters& parameters, size_t length) {
  return parameters.weight.size() == length && parameters.bias.size() == length;
}

bool HasLength(const NormalizationStatistics& statistics, size_t length) {
  return statistics.mean.size() == length && statistics.variance.size() == length;
}

bool HasLength(const Moments& moments, size_t length) {
  return moments.mean.size() == length && moments.m2.size() == length;
}

bool HasLength(const ObservedMoments& observed, size_t length) { return HasLength(observed.moments, length); }

constexpr absl::string_view kParametersPart = "weight and bias";
constexpr absl::string_view kRunningPart = "running statistics";
constexpr absl::string_view kShadowPart = "shadow moments";
constexpr absl::string_view kObservedPart = "observed moments";
constexpr absl::string_view kObservedBeforePart = "moments observed before";
constexpr absl::string_view kMissing = "it is missing";

// Whether those of `recorded`, the version in the head, are there; nothing where the head says none.
template <typename T>
absl::StatusOr<std::shared_ptr<const T>> Recorded(const StoredPart& part, int64_t recorded,
                                                  const std::map<int64_t, std::shared_ptr<const T>>& vectors) {
  const int64_t there = vectors.empty() ? kNoVersion : vectors.rbegin()->first;
  if (recorded != kNotRecorded && recorded != there) {
    return StoredDataLost(part, there == kNoVersion ? kMissing : "those of another change are there");
  }
  return vectors.empty() ? nullptr : vectors.rbegin()->second;
}

template <typename T>
absl::Status Take(const StoredPart& part, absl::StatusOr<T> read, int64_t version, size_t length,
                  std::map<int64_t, std::shared_ptr<const T>>& vectors) {
  if (!read.ok()) return read.status();
  if (!HasLength(*read, length)) return StoredDataLost(part, "it is not of the session's length");
  vectors[version] = std::make_shared<const T>(*std::move(read));
  return absl::OkStatus();
}

}  // namespace

RecordWriter& WriteMomentsFields(const Moments& moments, RecordWriter& to) {
  return to.Int(moments.count).Vector(moments.mean).Vector(moments.m2).Int(moments.num_samples);
}

Moments ReadMomentsFields(RecordReader& from) {
  Moments moments{.count = from.Int()};
  moments.mean = from.Vector<double>();
  moments.m2 = from.Vector<double>();
  if (from.version() >= 2) moments.num_samples = from.Int();
  return moments;
}

std::string WriteParameters(const AffineParameters& parameters) {
  return RecordWriter().Vector(parameters.weight).Vector(parameters.bias).Finish();
}

std::string WriteStatistics(const NormalizationStatistics& statistics) {
  return RecordWriter().Vector(statistics.mean).Vector(statistics.variance).Finish();
}

void WriteVectors(const SessionContent& before, const SessionContent& after, SessionWrite& write) {
  if (after.state->parameters != before.state->parameters) {
    write.current.push_back({VectorKind::kParameters, write.sequence, WriteParameters(*after.state->parameters)});
  }
  if (after.state->running != before.state->running) {
    write.current.push_back({VectorKind::kRunning, write.sequence, WriteStatistics(*after.state->running)});
  }
  if (const auto& shadow = after.observations.shadow; shadow != before.observations.shadow) {
    write.current.push_back({VectorKind::kShadow, write.sequence, shadow == nullptr ? "" : WriteMoments(*shadow)});
  }
  if (const Observations& seen = after.observations; seen.observed != before.observations.observed) {
    static const std::vector<ObservedPart> kNoParts;
    write.current.push_back(
        {VectorKind::kObserved, write.sequence,
         seen.observed == nullptr
             ? ""
             : WriteObserved(*seen.observed, seen.observed_parts == nullptr ? kNoParts : *seen.observed_parts)});
  }
  if (const auto& earlier = after.observations.observed_before; earlier != before.observations.observed_before) {
    write.current.push_back(
        {VectorKind::kObservedBefore, write.sequence, earlier == nullptr ? "" : WriteMoments(*earlier)});
  }
}

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
    case VectorKind::kObserved: {
      const StoredPart part = session.Of(kObservedPart);
      return Take(part, ReadObserved(part, vector.data), version, length, vectors.observed);
    }
    case VectorKind::kObservedBefore: {
      const StoredPart part = session.Of(kObservedBeforePart);
      return Take(part, ReadMoments(part, vector.data), version, length, vectors.observed_before);
    }
  }
  return StoredDataLost(session.Of("vectors"), "the kind of one is not known");
}

absl::Status FillIn(const StoredPart& session, const StoredVectors& vectors, const SessionHead& head,
                    SessionState& state, Observations& observations) {
  state.parameters = OfVersion(vectors.parameters, state.parameters_version);
  if (state.parameters == nullptr) return StoredDataLost(session.Of(kParametersPart), kMissing);
  if (state.config.track_running_stats) {
    state.running = OfVersion(vectors.running, state.running_version);
    if (state.running == nullptr) return StoredDataLost(session.Of(kRunningPart), kMissing);
  }
  auto shadow = Recorded(session.Of(kShadowPart), head.shadow_version, vectors.shadow);
  if (!shadow.ok()) return shadow.status();
  if (*shadow != nullptr) {
    observations.shadow = *std::move(shadow);
    observations.shadow_version = vectors.shadow.rbegin()->first;
  }
  const auto observed = Recorded(session.Of(kObservedPart), head.observed_version, vectors.observed);
  if (!observed.ok()) return observed.status();
  if (*observed != nullptr) {
    observations.observed = std::make_shared<const Moments>((*observed)->moments);
    observations.observed_parts = std::make_shared<const std::vector<ObservedPart>>((*observed)->parts);
    observations.observed_version = vectors.observed.rbegin()->first;
  }
  auto before = Recorded(session.Of(kObservedBeforePart), head.observed_before_version, vectors.observed_before);
  if (!before.ok()) return before.status();
  if (*before != nullptr) {
    observations.observed_before = *std::move(before);
    observations.observed_before_version = vectors.observed_before.rbegin()->first;
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
