// The bytes that a store keeps: sessions, vectors, answers and snapshots, written and read bit for bit.
//
// A record is a version byte, its fields in order, and the XXH3-64 of all before. Numbers are little-endian: integers
// of 8 bytes, IEEE 754 floats and doubles; a text or a vector begins with its length. A new version is read beside the
// old ones.
//
// Version 1 holds what is stored and nothing of its row. Version 2, of heads, requests and snapshots, adds
// what ties it to its row and says what else must be there:
//
//   head      at its end: name and uid of the session; the number of requests remembered so far; the version of the
//             shadow moments, -1 for none. (Those of the other vectors are in its state.) Version 3 adds that of the
//             observed moments, version 5 the number of rows of collections, version 6 the version of the moments
//             observed before.
//   request   at its beginning: uid of the session, empty for the server's; request_id; sequence
//   snapshot  at its beginning: uid of the session; name
//
// Version 4 of heads and snapshots adds, at the end of the state, statistics_set_at, and to the head, at its end, the
// number of updates that its history counts (no snapshot is of version 3). A point of this history has had its uid and
// slot since its version 1. Version 2 of moments, of what was observed, and of parts and results of collections adds
// the number of samples behind each m2.
//
// What damage does, to a record, to its row, or by taking the row away: of a head or a vector, all of the session is
// lost; of a collection's row, what is gathered can only be dropped; of a request or a kept vector, its next change and
// every repeat are refused; of a snapshot, that alone is lost; of a point of history, that alone, and nobody is told:
// it is an observation, and the next ones replace it; and of a request remembered for the server, a repeat of it is not
// recognised. Nothing tells that a session's row is missing, or one of a kept vector or of the last three: they are not
// there.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/batch_norm.h"
#include "server/session/history.h"
#include "server/session/request_memory.h"
#include "server/session/session_content.h"
#include "server/session/session_errors.h"
#include "server/session/session_state.h"
#include "server/store/state_store.h"

namespace normserve {

// Of a version where there are no such vectors.
constexpr int64_t kNoVersion = -1;
// What a record of an older version does not say.
constexpr int64_t kNotRecorded = -2;

// A session but its vectors.
struct SessionHead {
  SessionState state;  // without parameters and running
  absl::Time create_time;
  // Since version 2.
  std::string name;
  std::string uid;
  int64_t num_remembered = kNotRecorded;         // requests so far: the ring holds the last of them
  int64_t shadow_version = kNotRecorded;         // kNoVersion: there are no shadow moments
  int64_t observed_version = kNoVersion;         // since version 3; kNoVersion: there are none
  int64_t num_updates = 0;                       // since version 4; as History has it
  int64_t num_collection_rows = 0;               // since version 5
  int64_t observed_before_version = kNoVersion;  // since version 6; kNoVersion: there are none
};

// What Observe was told: the moments of it all, and the newest parts.
struct ObservedMoments {
  Moments moments;
  std::vector<ObservedPart> parts;
};

std::string WriteHead(const SessionHead& head);
std::string WriteParameters(const AffineParameters& parameters);
std::string WriteStatistics(const NormalizationStatistics& statistics);
std::string WriteMoments(const Moments& moments);
std::string WriteObserved(const Moments& moments, const std::vector<ObservedPart>& parts);
// A part, or the result, of a collection of the session of uid `uid`.
std::string WritePart(absl::string_view uid, absl::string_view collection, const CollectedPart& part);
std::string WriteResult(absl::string_view uid, absl::string_view collection, const CollectionResult& result);
// Of the session of uid `uid`.
StoredSnapshot WriteSnapshot(absl::string_view uid, const std::string& name, const StateSnapshot& snapshot);

// Of the session of uid `uid`.
StoredPoint WritePoint(absl::string_view uid, size_t slot, const HistoryPoint& point);

// A remembered request. Of a ForwardAnswer's vectors the versions are kept; kNoVersion where it has none.
struct RememberedRequest {
  Fingerprint fingerprint;
  Answer answer;
};

// Where requests are remembered: request n in slot n % num_slots.
struct RequestRing {
  std::string uid;  // of the session; empty: the server's
  int64_t num_slots = 0;
};
StoredRequest WriteRequest(const RequestRing& ring, int64_t sequence, const std::string& request_id,
                           const RememberedRequest& request);

// DATA_LOSS (STORED_DATA_LOST), naming `what`: the record is damaged, of a version that is not known, or not that of
// its row.
absl::StatusOr<SessionHead> ReadHead(const StoredPart& what, const StoredHead& row);
// The name in a head's record, whatever its row says; empty: there is none that can be read.
std::string NameInHead(absl::string_view record);
absl::StatusOr<AffineParameters> ReadParameters(const StoredPart& what, absl::string_view record);
absl::StatusOr<NormalizationStatistics> ReadStatistics(const StoredPart& what, absl::string_view record);
absl::StatusOr<Moments> ReadMoments(const StoredPart& what, absl::string_view record);
absl::StatusOr<ObservedMoments> ReadObserved(const StoredPart& what, absl::string_view record);
absl::StatusOr<CollectedPart> ReadPart(const StoredPart& what, absl::string_view uid, const StoredCollectionRow& row);
absl::StatusOr<CollectionResult> ReadResult(const StoredPart& what, absl::string_view uid,
                                            const StoredCollectionRow& row);
absl::StatusOr<StateSnapshot> ReadSnapshot(const StoredPart& what, absl::string_view uid, const StoredSnapshot& row);
absl::StatusOr<HistoryPoint> ReadPoint(const StoredPart& what, absl::string_view uid, const StoredPoint& row);
absl::StatusOr<RememberedRequest> ReadRequest(const StoredPart& what, const RequestRing& ring,
                                              const StoredRequest& row);

// Hands the rows of a ring to `take`, oldest first; of rows with the same id the newest alone: a write that was refused
// leaves in its slot what was there before. What is wrong with a damaged row goes to `lost`.
void ReadRequests(const StoredPart& what, const RequestRing& ring, const std::vector<StoredRequest>& rows,
                  absl::FunctionRef<void(const StoredRequest& row, RememberedRequest request)> take,
                  absl::FunctionRef<void(absl::Status damage)> lost);

}  // namespace normserve
