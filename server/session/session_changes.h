// What the changes of a session's state make of its newest content: of one session, or of each of a model's.
#pragma once

#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "server/session/session_journal.h"

namespace normserve {

// Snapshots of one session at most.
constexpr int64_t kMaxSnapshots = 1000;

// NOT_FOUND (SESSION_NOT_FOUND): it is deleted; and what the change says.
using MakeChange =
    std::function<absl::StatusOr<SessionChange>(const SessionJournal& journal, const SessionContent& newest)>;

// One generation on, with what `edit` makes of the newest state and what was observed beside it. Other running
// statistics were set at the num_batches_tracked that they come with, unless `edit` says where.
using Edit = std::function<absl::Status(const SessionJournal& journal, const SessionContent& newest,
                                        SessionState& state, Observations& observations)>;
MakeChange StateChange(Edit edit);

// Those of Session, with their errors. The names are legal.
MakeChange ModeChange(Mode mode);
MakeChange SnapshotTaking(std::string name);
MakeChange SnapshotRestoring(std::string name);
MakeChange SnapshotDeleting(std::string name);
MakeChange SessionDeleting();

// OK if a snapshot may be taken under `name`. ALREADY_EXISTS (SNAPSHOT_EXISTS); RESOURCE_EXHAUSTED (LIMIT_REACHED).
absl::Status CheckNewSnapshot(const SessionIdentity& identity, const SessionContent& newest, const std::string& name);

// A session as it is, or was, with `content`; and one of its snapshots.
SessionDescription Describe(const SessionIdentity& identity, const SessionContent& content);
SnapshotDescription Describe(const SessionIdentity& identity, absl::string_view name, const StateSnapshot& snapshot);

}  // namespace normserve
