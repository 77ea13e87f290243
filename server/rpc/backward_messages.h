// Backward's messages, as forward_messages.h has Forward's.
#pragma once

#include <grpcpp/support/byte_buffer.h>

#include "absl/status/statusor.h"
#include "server/rpc/call_gate.h"
#include "server/session/backward_call.h"

namespace normserve {

// Reads a serialised normserve.v1.BackwardRequest, fields in any order.
absl::StatusOr<BackwardRequest> ReadBackwardRequest(const grpc::ByteBuffer& message);

// A serialised normserve.v1.BackwardReply.
grpc::ByteBuffer WriteBackwardReply(const BackwardReply& reply, const CallGate::Pass& bytes);

}  // namespace normserve
