// A call whose request and reply are whole messages: let in, parsed, worked on, answered.
#pragma once

#include <grpcpp/support/byte_buffer.h>

#include <exception>
#include <memory>
#include <utility>

#include "absl/functional/any_invocable.h"
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

// What ends such a call: OK sends the reply as it is then. Once, on any thread.
using MessageDone = absl::AnyInvocable<void(absl::Status) &&>;

// As AnswerMessage for work that ends on another thread. `owner` keeps `request` and `reply` alive until then.
grpc::ServerUnaryReactor* AnswerMessageLater(grpc::CallbackServerContext* context, absl::string_view method,
                                             CallGate& gate, const grpc::ByteBuffer& request_bytes,
                                             google::protobuf::Message& request, google::protobuf::Message& reply,
                                             grpc::ByteBuffer& reply_bytes, std::shared_ptr<void> owner,
                                             absl::FunctionRef<void(MessageDone)> work);

// The same, with messages of its own: `work(request, reply, done)`, where both last until `done` is called.
template <typename Request, typename Reply, typename Work>
grpc::ServerUnaryReactor* AnswerChange(grpc::CallbackServerContext* context, absl::string_view method, CallGate& gate,
                                       const grpc::ByteBuffer& request_bytes, grpc::ByteBuffer& reply_bytes,
                                       Work work) {
  struct Messages {
    Request request;
    Reply reply;
  };
  auto messages = std::make_shared<Messages>();
  return AnswerMessageLater(context, method, gate, request_bytes, messages->request, messages->reply, reply_bytes,
                            messages,
                            [&](MessageDone done) { work(messages->request, messages->reply, std::move(done)); });
}

// Takes the domain's answer: writes it into the reply with `write`, then ends the call.
template <typename Write>
auto WriteAndEnd(MessageDone done, Write write) {
  return [done = std::move(done), write = std::move(write)](auto answer) mutable {
    if (answer.ok()) write(*answer);
    std::move(done)(answer.status());
  };
}

// The same for a session or a model: writes each of what the domain answers, one of them or a vector.
template <typename Write>
auto WriteEachAndEnd(MessageDone done, Write write) {
  return WriteAndEnd(std::move(done), [write = std::move(write)](const auto& answer) {
    if constexpr (requires { answer.begin(); }) {
      for (const auto& each : answer) write(each);
    } else {
      write(answer);
    }
  });
}

// The same of a message of a stream. INVALID_ARGUMENT: it cannot be parsed, or has a field that is kept for later.
absl::Status ParseMessage(const grpc::ByteBuffer& bytes, google::protobuf::Message& message);
// RESOURCE_EXHAUSTED (LIMIT_REACHED): it would be longer than a message can be.
absl::Status SerialiseMessage(const google::protobuf::Message& message, grpc::ByteBuffer& bytes);

// What an exception of the standard library means, which no code of ours throws: memory has run out.
absl::Status OutOfMemory(const std::exception& exception);

}  // namespace normserve
