// What a test says about a status: its code and its reason.
#pragma once

#include <gmock/gmock.h>

#include "absl/status/status.h"
#include "kernels/error_reason.h"

namespace normserve {

MATCHER_P2(Fails, code, reason, "") {
  const absl::Status& status = arg;
  const auto details = GetErrorDetails(status);
  *result_listener << status;
  return status.code() == code && details.has_value() && details->reason == reason;
}

}  // namespace normserve
