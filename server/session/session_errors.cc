#include "server/session/session_errors.h"

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "kernels/error_reason.h"

namespace normserve {

absl::Status SessionNotFound(absl::string_view name) {
  return MakeError(absl::StatusCode::kNotFound, ErrorReason::kSessionNotFound,
                   absl::StrCat("session \"", name, "\" does not exist: create it with CreateSession"),
                   {{"session", std::string(name)}});
}

absl::Status ModelNotFound(absl::string_view prefix) {
  return MakeError(absl::StatusCode::kNotFound, ErrorReason::kSessionNotFound,
                   absl::StrCat("no session's name begins with \"", prefix,
                                "\": ask ListSessions which there are, or leave out the '/' to name a single session"),
                   {{"session", std::string(prefix)}});
}

absl::Status SessionExists(absl::string_view field, absl::string_view name) {
  return MakeError(absl::StatusCode::kAlreadyExists, ErrorReason::kSessionExists,
                   absl::StrCat("session \"", name, "\" is already open: take another name or delete it first"),
                   {{"field", std::string(field)}, {"session", std::string(name)}});
}

absl::Status LineageChanged(absl::string_view name, bool is_deleted) {
  return MakeError(
      absl::StatusCode::kAborted, ErrorReason::kLineageChanged,
      absl::StrCat("session \"", name, "\" ", is_deleted ? "was deleted" : "got other parameters or statistics",
                   " while the call ran; nothing was folded: send it again"),
      {{"session", std::string(name)}});
}

absl::Status RequestIdReused(absl::string_view request_id) {
  return MakeError(absl::StatusCode::kInvalidArgument, ErrorReason::kRequestIdReused,
                   absl::StrCat("request_id \"", request_id,
                                "\" was used before with another payload: take a new id for a new request"),
                   {{"field", "request_id"}, {"request_id", std::string(request_id)}});
}

absl::Status AnswerDropped(absl::string_view name, absl::string_view request_id, int64_t generation) {
  return MakeError(absl::StatusCode::kFailedPrecondition, ErrorReason::kAnswerDropped,
                   absl::StrCat("request_id \"", request_id, "\" was applied to session \"", name, "\" as generation ",
                                generation, "; what its output was computed with is no longer kept: the change stands"),
                   {{"session", std::string(name)}, {"generation", absl::StrCat(generation)}});
}

absl::Status NotTracked(absl::string_view field, absl::string_view name, absl::string_view advice) {
  return MakeError(absl::StatusCode::kFailedPrecondition, ErrorReason::kNotTracked,
                   absl::StrCat(field, " asks for running statistics, and session \"", name,
                                "\" tracks none (track_running_stats is false): ", advice),
                   {{"field", std::string(field)}, {"session", std::string(name)}});
}

absl::Status NotAffine(absl::string_view name) {
  return MakeError(
      absl::StatusCode::kFailedPrecondition, ErrorReason::kNotAffine,
      absl::StrCat("session \"", name, "\" has no weight and bias (affine is false): create one with affine"),
      {{"field", "parameters"}, {"session", std::string(name)}});
}

absl::Status DurabilityUnavailable(absl::string_view durability) {
  return MakeError(absl::StatusCode::kFailedPrecondition, ErrorReason::kDurabilityUnavailable,
                   absl::StrCat("config.durability is ", durability,
                                ", but this server has no data directory: leave it out, or start the server with "
                                "--data-dir"),
                   {{"field", "config.durability"}});
}

absl::Status SnapshotNotFound(absl::string_view session, absl::string_view snapshot) {
  return MakeError(
      absl::StatusCode::kNotFound, ErrorReason::kSnapshotNotFound,
      absl::StrCat("session \"", session, "\" has no snapshot \"", snapshot, "\": ListSnapshots tells which there are"),
      {{"session", std::string(session)}, {"snapshot", std::string(snapshot)}});
}

absl::Status SnapshotExists(absl::string_view session, absl::string_view snapshot) {
  return MakeError(absl::StatusCode::kAlreadyExists, ErrorReason::kSnapshotExists,
                   absl::StrCat("session \"", session, "\" has a snapshot \"", snapshot,
                                "\" already: take another name or delete it first"),
                   {{"session", std::string(session)}, {"snapshot", std::string(snapshot)}});
}

absl::Status CollectionNotFound(absl::string_view name, absl::string_view collection) {
  return MakeError(absl::StatusCode::kNotFound, ErrorReason::kCollectionNotFound,
                   absl::StrCat("\"", name, "\" has no part of ", collection,
                                ": send parts first; one that was dropped, or committed long ago, is forgotten"),
                   {{"session", std::string(name)}});
}

absl::Status CollectionCommitted(absl::string_view session, absl::string_view collection, int64_t num_parts,
                                 int64_t generation) {
  return MakeError(
      absl::StatusCode::kFailedPrecondition, ErrorReason::kCollectionCommitted,
      absl::StrCat(collection, " of session \"", session, "\" was committed with ", num_parts, " parts at generation ",
                   generation, ": what comes later does not count; gather it under another id"),
      {{"session", std::string(session)}, {"generation", absl::StrCat(generation)}});
}

absl::Status CommittedOtherwise(absl::string_view session, absl::string_view collection, absl::string_view first,
                                absl::string_view asked) {
  return MakeError(
      absl::StatusCode::kFailedPrecondition, ErrorReason::kCollectionCommitted,
      absl::StrCat(collection, " of session \"", session, "\" was committed with ", first, ", this commit asks for ",
                   asked, ": ask without commit what it came to, or gather the parts under another id"),
      {{"session", std::string(session)}});
}

absl::Status StateBytesReached(int64_t max_bytes, int64_t used_bytes, int64_t needed_bytes) {
  return MakeError(absl::StatusCode::kResourceExhausted, ErrorReason::kLimitReached,
                   absl::StrCat("max_state_bytes is ", max_bytes, ", ", used_bytes, " are in use and ", needed_bytes,
                                " more are needed: delete some sessions or snapshots, or raise the limit"),
                   {{"limit", "max_state_bytes"}});
}

StoredPart StoredPart::OfSnapshot(absl::string_view name) const {
  StoredPart snapshot = Of(absl::StrCat("snapshot \"", absl::CHexEscape(name), "\""));
  snapshot.way_out = "delete the snapshot";
  return snapshot;
}

absl::Status StoredDataLost(const StoredPart& part, absl::string_view detail) {
  const std::string session = absl::CHexEscape(part.session);
  return MakeError(absl::StatusCode::kDataLoss, ErrorReason::kStoredDataLost,
                   absl::StrCat("session \"", session, "\" in ", part.location, " is damaged: ", part.part, ": ",
                                detail, ": restore the directory from a copy, or ", part.way_out),
                   {{"session", session}, {"part", part.part}});
}

}  // namespace normserve
