// A call whose request and reply are whole messages: let in, parsed, worked on, answered.
#pragma once

#include <grpcpp/support/byte_buffer.h>

#include <exception>
#include <memory>

#include "absl/functional/function_ref.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/message.h"
#include "server/rpc/call_gate.h"
#include "server/rpc/unary_call.h"

namespace normserve {

// Answers one call with what `work` makes of `request`, a message that this fills and checks, and `reply`, which this
// sends. Longer messages count as bytes in work until the call is over, reply sent.
//
// The service's methods are raw so that a message that cannot be parsed answers INVALID_ARGUMENT (gRPC by itself says
// UNIMPLEMENTED, as for a method that is not there), and its length is known before it is parsed.
grpc::ServerUnaryReactor* AnswerMessage(grpc::CallbackServerContext* context, absl::string_view method, CallGate& gate,
                                        const grpc::ByteBuffer& request_bytes, google::protobuf::Message& request,
                                        google::protobuf::Message& reply, grpc::ByteBuffer& reply_bytes,
                                        absl::FunctionRef<absl::Status()> work);

// What an exception of the standard library means, which no code of ours throws: memory has run out.
absl::Status OutOfMemory(const std::exception& exception);

}  // namespace normserve
