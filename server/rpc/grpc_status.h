// The one place where an absl::Status becomes a grpc::Status.
#pragma once

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace normserve {

// The same code and message, and details for machines (error_details.proto): ErrorInfo where the status has a reason,
// RetryInfo for RESOURCE_EXHAUSTED.
grpc::Status ToGrpcStatus(const absl::Status& status);

}  // namespace normserve
