#include "server/session/session_errors.h"

#include "absl/strings/str_cat.h"
#include "kernels/error_reason.h"

namespace normserve {

absl::Status SessionNotFound(absl::string_view name) {
  return MakeError(absl::StatusCode::kNotFound, ErrorReason::kSessionNotFound,
                   absl::StrCat("session \"", name, "\" does not exist: create it with CreateSession"),
                   {{"session", std::string(name)}});
}

absl::Status SessionExists(absl::string_view field, absl::string_view name) {
  return MakeError(absl::StatusCode::kAlreadyExists, ErrorReason::kSessionExists,
                   absl::StrCat("session \"", name, "\" is already open: take another name or delete it first"),
                   {{"field", std::string(field)}, {"session", std::string(name)}});
}

absl::Status LineageChanged(absl::string_view name, bool is_deleted) {
  return MakeError(absl::StatusCode::kAborted, ErrorReason::kLineageChanged,
                   absl::StrCat("session \"", name, "\" ", is_deleted ? "was deleted" : "got other parameters",
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

absl::Status NotTracked(absl::string_view field, absl::string_view name) {
  return MakeError(
      absl::StatusCode::kFailedPrecondition, ErrorReason::kNotTracked,
      absl::StrCat(field, " asks for running statistics, and session \"", name,
                   "\" tracks none (track_running_stats is false): normalise with the batch and update NONE"),
      {{"field", std::string(field)}, {"session", std::string(name)}});
}

absl::Status NotAffine(absl::string_view name) {
  return MakeError(
      absl::StatusCode::kFailedPrecondition, ErrorReason::kNotAffine,
      absl::StrCat("session \"", name, "\" has no weight and bias (affine is false): create one with affine"),
      {{"field", "parameters"}, {"session", std::string(name)}});
}

}  // namespace normserve
