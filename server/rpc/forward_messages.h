// Forward's messages, read and written around the tensor's bytes, which stay where gRPC or the engine put them.
#pragma once

#include <grpcpp/support/byte_buffer.h>

#include <string>

#include "absl/status/statusor.h"
#include "server/rpc/call_gate.h"
#include "server/session/forward_request.h"

namespace normserve {

// Reads a serialised normserve.v1.ForwardRequest, fields in any order. The pieces of the result point into the
// buffer's slices, which its owner keeps alive. INVALID_ARGUMENT: the message is truncated or malformed, or an enum
// has a value that this server does not know.
absl::StatusOr<ForwardRequest> ReadForwardRequest(const grpc::ByteBuffer& message);

// A serialised normserve.v1.ForwardReply whose last slices are the engine's own memory. That memory and `bytes` are
// given back when the transport is done with them. `saved_forward` is the token, or empty.
grpc::ByteBuffer WriteForwardReply(const ForwardReply& reply, const std::string& saved_forward,
                                   const CallGate::Pass& bytes);

}  // namespace normserve
