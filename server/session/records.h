// The bytes that a store keeps: sessions, vectors, answers and snapshots, written and read bit for bit.
//
// A record is a version byte, its fields in order, and the XXH3-64 of all before. Numbers are little-endian: integers
// of 8 bytes, IEEE 754 floats and doubles; a text or a vector begins with its length. A new version is read beside the
// old ones.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/batch_norm.h"
#include "server/session/request_memory.h"
#include "server/session/session_state.h"
#include "server/store/state_store.h"

namespace normserve {

// Of a version where there are no such vectors.
constexpr int64_t kNoVersion = -1;

// A session but its vectors and names.
struct SessionHead {
  SessionState state;  // without parameters and running
  absl::Time create_time;
};

std::string WriteHead(const SessionHead& head);
std::string WriteParameters(const AffineParameters& parameters);
std::string WriteStatistics(const NormalizationStatistics& statistics);
std::string WriteMoments(const Moments& moments);
std::string WriteSnapshot(const StateSnapshot& snapshot);

// A remembered request. Of a ForwardAnswer's vectors the versions are kept; kNoVersion where it has none.
struct RememberedRequest {
  Fingerprint fingerprint;
  Answer answer;
};
std::string WriteRequest(const RememberedRequest& request);

// DATA_LOSS (STORED_DATA_LOST), naming `what`: the record is damaged, or of a version that is not known.
absl::StatusOr<SessionHead> ReadHead(absl::string_view what, absl::string_view record);
absl::StatusOr<AffineParameters> ReadParameters(absl::string_view what, absl::string_view record);
absl::StatusOr<NormalizationStatistics> ReadStatistics(absl::string_view what, absl::string_view record);
absl::StatusOr<Moments> ReadMoments(absl::string_view what, absl::string_view record);
absl::StatusOr<StateSnapshot> ReadSnapshot(absl::string_view what, absl::string_view record);
absl::StatusOr<RememberedRequest> ReadRequest(absl::string_view what, absl::string_view record);

// Hands the rows of a ring to `take`, oldest first; of rows with the same id the newest alone: a write that was refused
// leaves in its slot what was there before.
absl::Status ReadRequests(absl::string_view what, const std::vector<StoredRequest>& rows,
                          absl::FunctionRef<void(const std::string& request_id, RememberedRequest request)> take);

}  // namespace normserve
