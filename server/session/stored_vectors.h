// The vectors of a stored session, which lie beside its record.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "kernels/batch_norm.h"
#include "server/session/request_memory.h"
#include "server/session/session_content.h"
#include "server/session/session_errors.h"
#include "server/session/session_state.h"
#include "server/session/stored_state.h"
#include "server/store/state_store.h"

namespace normserve {

class RecordReader;
class RecordWriter;

// What Observe was told: the moments of it all, and the newest parts.
struct ObservedMoments {
  Moments moments;
  std::vector<ObservedPart> parts;
};

std::string WriteParameters(const AffineParameters& parameters);
std::string WriteStatistics(const NormalizationStatistics& statistics);
// Adds to `write`, under its sequence, the vectors of `after` that `before` has not.
void WriteVectors(const SessionContent& before, const SessionContent& after, SessionWrite& write);

// By version.
struct StoredVectors {
  std::map<int64_t, std::shared_ptr<const AffineParameters>> parameters;
  std::map<int64_t, std::shared_ptr<const NormalizationStatistics>> running;
  std::map<int64_t, std::shared_ptr<const Moments>> shadow;
  std::map<int64_t, std::shared_ptr<const ObservedMoments>> observed;
  std::map<int64_t, std::shared_ptr<const Moments>> observed_before;
};

// Null: there are none of this version.
template <typename T>
std::shared_ptr<const T> OfVersion(const std::map<int64_t, std::shared_ptr<const T>>& vectors, int64_t version) {
  const auto found = vectors.find(version);
  return found == vectors.end() ? nullptr : found->second;
}

// Adds one, each [length]. DATA_LOSS (STORED_DATA_LOST), as all below.
absl::Status ReadVector(const StoredPart& session, const StoredVector& vector, size_t length, StoredVectors& vectors);

// Sets what of a stored session's content is in vectors, of the versions that its head says.
absl::Status FillIn(const StoredPart& session, const StoredVectors& vectors, const SessionHead& head,
                    SessionState& state, Observations& observations);

// Finds what the answer was computed with; without all of it, it counts as dropped.
void FillIn(const StoredVectors& vectors, ForwardAnswer& answer);

// Moments as fields of any record.
RecordWriter& WriteMomentsFields(const Moments& moments, RecordWriter& to);
Moments ReadMomentsFields(RecordReader& from);

}  // namespace normserve
