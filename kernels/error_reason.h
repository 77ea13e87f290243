// A reason for machines that travels inside an absl::Status, finer than its code.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace normserve {

// Why a call failed. The names are those of normserve.v1.ErrorReason without the prefix.
enum class ErrorReason {
  kInvalidField,
  kShapeMismatch,
  kBatchTooSmall,
  kNonFinite,
  kRequestIdReused,
  kSessionNotFound,
  kSessionExists,
  kGenerationMismatch,
  kUidMismatch,
  kLineageChanged,
  kLimitReached,
  kDeviceMemory,
  kDeviceLost,
  kDraining,
  kAnswerDropped,
  kTokenDropped,
  kNotTracked,
  kNotAffine,
  kSelfTestFailed,
  kNotOwner,
  kDurabilityUnavailable,
  kStoreRefused,
  kStoredDataLost,
  kSnapshotNotFound,
  kSnapshotExists,
  kConventionMismatch,
  kPartConflict,
  kCollectionNotFound,
  kCollectionCommitted,
};

// "SHAPE_MISMATCH" and so on.
absl::string_view ErrorReasonName(ErrorReason reason);

// What accompanies a status: the reason, and what it is about, such as {"field", "input.shape"}.
struct ErrorDetails {
  ErrorReason reason;
  std::map<std::string, std::string> metadata;
};

// A status of `code` with `message` and details. `message` names the field, the value and what would be right.
absl::Status MakeError(absl::StatusCode code, ErrorReason reason, absl::string_view message,
                       std::map<std::string, std::string> metadata = {});

// The details that MakeError put in; nothing if `status` was made otherwise.
std::optional<ErrorDetails> GetErrorDetails(const absl::Status& status);

}  // namespace normserve
