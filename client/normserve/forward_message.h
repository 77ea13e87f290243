// Forward's request and reply as bytes, with one copy of the tensor on each side: values go from the caller's memory
// to the transport's and back, never through a parsed message. Internal: not installed.
#pragma once

#include <grpcpp/support/byte_buffer.h>

#include "absl/status/statusor.h"
#include "normserve/connection.h"

namespace normserve::client {

// The encoded normserve.v1.ForwardRequest. INVALID_ARGUMENT: the input does not fit one message (2 GiB).
absl::StatusOr<grpc::ByteBuffer> EncodeForwardRequest(const ForwardRequest& request);

// Reads an encoded normserve.v1.ForwardReply. INTERNAL: it is not one, or its output is not a float32 tensor.
absl::StatusOr<ForwardResult> DecodeForwardReply(grpc::ByteBuffer& reply);

// The same for Backward.
absl::StatusOr<grpc::ByteBuffer> EncodeBackwardRequest(const BackwardRequest& request);
absl::StatusOr<BackwardResult> DecodeBackwardReply(grpc::ByteBuffer& reply);

}  // namespace normserve::client
