// Messages to the session domain's types and back.
#pragma once

#include <optional>

#include "absl/status/statusor.h"
#include "normserve/v1/batch_norm_service.pb.h"
#include "server/session/change_guard.h"
#include "server/session/session.h"
#include "server/session/session_registry.h"

namespace normserve {

// Nothing for MODE_UNSPECIFIED. INVALID_ARGUMENT: a value that this server does not know.
absl::StatusOr<std::optional<Mode>> ReadMode(int mode);
v1::Mode WriteMode(Mode mode);

// Whether vectors are asked for. INVALID_ARGUMENT: a value that this server does not know.
absl::StatusOr<bool> ReadView(int view);

absl::StatusOr<SessionDraft> ReadDraft(const v1::CreateSessionRequest& request);

void WriteDescription(const SessionDescription& description, v1::Session& message);

void WriteSnapshot(const SnapshotDescription& description, v1::Snapshot& message);

// A page of those of `sessions`, which are what `request.name` speaks of. INVALID_ARGUMENT: page_size or page_token.
absl::Status WriteSnapshots(const std::vector<std::shared_ptr<Session>>& sessions,
                            const std::vector<SessionContent>& contents, const v1::ListSnapshotsRequest& request,
                            v1::ListSnapshotsReply& reply);

// Description, and with `with_vectors` parameters and statistics, all of one state.
void WriteSession(const Session& session, bool with_vectors, v1::Session& message);

// The guards of any request that has all three.
template <typename Request>
ChangeGuard ReadGuard(const Request& request) {
  ChangeGuard guard{.request_id = request.request_id(), .expected_uid = request.expected_uid()};
  if (request.has_expected_generation()) guard.expected_generation = request.expected_generation();
  return guard;
}

}  // namespace normserve
