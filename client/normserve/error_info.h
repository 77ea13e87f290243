// What an absl::Status from this library carries beside its code and its text.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace normserve::client {

// The server's reason for machines.
struct ErrorInfo {
  std::string reason;                           // such as "SHAPE_MISMATCH": normserve.v1.ErrorReason, no prefix
  std::map<std::string, std::string> metadata;  // such as {"field", "input.shape"}
};

// The reason in `status`; nothing if it is OK or the failure is not one that the server explained (no connection,
// deadline). The status code and the text are the server's own, unchanged:
//
//   absl::StatusOr<ForwardResult> result = bn.Forward(x);
//   if (auto info = GetErrorInfo(result.status()); info && info->reason == "BATCH_TOO_SMALL") …
std::optional<ErrorInfo> GetErrorInfo(const absl::Status& status);

// How long the server asks callers to wait before they repeat the call; nothing if it does not.
std::optional<absl::Duration> GetRetryDelay(const absl::Status& status);

// Put the same into `status`, which must not be OK: for a mock that fails as a server does.
void SetErrorInfo(const ErrorInfo& info, absl::Status& status);
void SetRetryDelay(absl::Duration delay, absl::Status& status);

}  // namespace normserve::client
