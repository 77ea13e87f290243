#include "kernels/error_reason.h"

#include <array>

#include "absl/strings/cord.h"
#include "absl/strings/str_split.h"

namespace normserve {
namespace {

constexpr absl::string_view kPayloadUrl = "normserve/error-details";

constexpr std::array<absl::string_view, 29> kNames = {"INVALID_FIELD",
                                                      "SHAPE_MISMATCH",
                                                      "BATCH_TOO_SMALL",
                                                      "NON_FINITE",
                                                      "REQUEST_ID_REUSED",
                                                      "SESSION_NOT_FOUND",
                                                      "SESSION_EXISTS",
                                                      "GENERATION_MISMATCH",
                                                      "UID_MISMATCH",
                                                      "LINEAGE_CHANGED",
                                                      "LIMIT_REACHED",
                                                      "DEVICE_MEMORY",
                                                      "DEVICE_LOST",
                                                      "DRAINING",
                                                      "ANSWER_DROPPED",
                                                      "TOKEN_DROPPED",
                                                      "NOT_TRACKED",
                                                      "NOT_AFFINE",
                                                      "SELF_TEST_FAILED",
                                                      "NOT_OWNER",
                                                      "DURABILITY_UNAVAILABLE",
                                                      "STORE_REFUSED",
                                                      "STORED_DATA_LOST",
                                                      "SNAPSHOT_NOT_FOUND",
                                                      "SNAPSHOT_EXISTS",
                                                      "CONVENTION_MISMATCH",
                                                      "PART_CONFLICT",
                                                      "COLLECTION_NOT_FOUND",
                                                      "COLLECTION_COMMITTED"};

}  // namespace

absl::string_view ErrorReasonName(ErrorReason reason) { return kNames[static_cast<size_t>(reason)]; }

// The payload is the reason's number, then key and value in turn, separated by NUL, which no field's text holds.
absl::Status MakeError(absl::StatusCode code, ErrorReason reason, absl::string_view message,
                       std::map<std::string, std::string> metadata) {
  absl::Status status(code, message);
  std::string payload = std::to_string(static_cast<int>(reason));
  for (const auto& [key, value] : metadata) {
    payload.append(1, '\0').append(key).append(1, '\0').append(value);
  }
  status.SetPayload(kPayloadUrl, absl::Cord(payload));
  return status;
}

std::optional<ErrorDetails> GetErrorDetails(const absl::Status& status) {
  const auto payload = status.GetPayload(kPayloadUrl);
  if (!payload.has_value()) return std::nullopt;
  const std::vector<std::string> parts = absl::StrSplit(std::string(*payload), '\0');
  ErrorDetails details{.reason = static_cast<ErrorReason>(std::stoi(parts[0]))};
  for (size_t i = 1; i + 1 < parts.size(); i += 2) details.metadata[parts[i]] = parts[i + 1];
  return details;
}

}  // namespace normserve
