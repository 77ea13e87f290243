#include "server/rpc/message_call.h"

#include <google/protobuf/descriptor.h>
#include <grpcpp/support/proto_buffer_reader.h>
#include <grpcpp/support/proto_buffer_writer.h>

#include <atomic>
#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "kernels/error_reason.h"
#include "server/rpc/kept_fields.h"
#include "server/session/field_error.h"

namespace normserve {
namespace {

// Shorter messages are not counted: small calls work on while large ones fill the limit.
constexpr int64_t kUncountedBytes = 64 << 10;

absl::Status Count(UnaryCall& call, CallGate& gate, int64_t size_bytes) {
  if (size_bytes <= kUncountedBytes) return absl::OkStatus();
  auto pass = gate.TakeBytes(size_bytes);
  if (!pass.ok()) return pass.status();
  call.Hold(*std::move(pass));
  return absl::OkStatus();
}

absl::Status Parse(const grpc::ByteBuffer& bytes, google::protobuf::Message& request) {
  const size_t size_bytes = bytes.Length();
  // The object is not const; gRPC only hands it out so.
  grpc::ProtoBufferReader reader(const_cast<grpc::ByteBuffer*>(&bytes));
  if (reader.status().ok() && request.ParseFromZeroCopyStream(&reader)) return absl::OkStatus();
  return FieldError("message", absl::StrCat("the message of ", size_bytes, " bytes is truncated or no serialised ",
                                            request.GetTypeName(), ": send it whole"));
}

// The field `name` that calls for one session have; null for others.
const std::string* SessionName(const google::protobuf::Message& request, std::string& scratch) {
  const auto* field = request.GetDescriptor()->FindFieldByName("name");
  return field == nullptr ? nullptr : &request.GetReflection()->GetStringReference(request, field, &scratch);
}

absl::Status Serialise(const google::protobuf::Message& reply, grpc::ByteBuffer& bytes) {
  const size_t size_bytes = reply.ByteSizeLong();
  if (size_bytes > static_cast<size_t>(std::numeric_limits<int>::max())) {
    return MakeError(absl::StatusCode::kResourceExhausted, ErrorReason::kLimitReached,
                     absl::StrCat("the reply would have ", size_bytes, " bytes, a message at most 2^31 - 1"));
  }
  grpc::ProtoBufferWriter writer(&bytes, 1 << 20, static_cast<int>(size_bytes));
  if (!reply.SerializeToZeroCopyStream(&writer)) return absl::InternalError("the reply could not be serialised");
  return absl::OkStatus();
}

absl::Status Begin(UnaryCall& call, CallGate& gate, const grpc::ByteBuffer& request_bytes,
                   google::protobuf::Message& request) {
  absl::Status status = call.Enter(gate);
  if (status.ok()) status = Count(call, gate, static_cast<int64_t>(request_bytes.Length()));
  if (status.ok()) status = Parse(request_bytes, request);
  if (!status.ok()) return status;
  std::string scratch;
  if (const std::string* name = SessionName(request, scratch); name != nullptr) status = call.CheckSession(*name);
  if (status.ok()) status = CheckKeptFields(request);
  return status;
}

absl::Status End(UnaryCall& call, CallGate& gate, const google::protobuf::Message& reply,
                 grpc::ByteBuffer& reply_bytes) {
  absl::Status status = Count(call, gate, static_cast<int64_t>(reply.ByteSizeLong()));
  return status.ok() ? Serialise(reply, reply_bytes) : status;
}

// What `work` says, or that memory has run out.
template <typename Work>
absl::Status Guarded(Work work) {
  try {
    return work();
  } catch (const std::exception& exception) {
    return OutOfMemory(exception);
  }
}

}  // namespace

absl::Status ParseMessage(const grpc::ByteBuffer& bytes, google::protobuf::Message& message) {
  absl::Status status = Parse(bytes, message);
  return status.ok() ? CheckKeptFields(message) : status;
}

absl::Status SerialiseMessage(const google::protobuf::Message& message, grpc::ByteBuffer& bytes) {
  return Serialise(message, bytes);
}

absl::Status OutOfMemory(const std::exception& exception) {
  return MakeError(absl::StatusCode::kResourceExhausted, ErrorReason::kLimitReached,
                   absl::StrCat("the server has no memory for this call (", exception.what(), ")"),
                   {{"limit", "memory"}});
}

grpc::ServerUnaryReactor* AnswerMessage(grpc::CallbackServerContext* context, absl::string_view method, CallGate& gate,
                                        const grpc::ByteBuffer& request_bytes, google::protobuf::Message& request,
                                        google::protobuf::Message& reply, grpc::ByteBuffer& reply_bytes,
                                        absl::FunctionRef<absl::Status()> work) {
  auto* call = new UnaryCall(context, method, request_bytes, reply_bytes);
  call->Answer(Guarded([&] {
    absl::Status status = Begin(*call, gate, request_bytes, request);
    if (status.ok()) status = work();
    return status.ok() ? End(*call, gate, reply, reply_bytes) : status;
  }));
  return call;
}

grpc::ServerUnaryReactor* AnswerMessageLater(grpc::CallbackServerContext* context, absl::string_view method,
                                             CallGate& gate, const grpc::ByteBuffer& request_bytes,
                                             google::protobuf::Message& request, google::protobuf::Message& reply,
                                             grpc::ByteBuffer& reply_bytes, std::shared_ptr<void> owner,
                                             absl::FunctionRef<void(MessageDone)> work) {
  auto* call = new UnaryCall(context, method, request_bytes, reply_bytes);
  // Whoever comes first ends the call: memory may run out after the work was handed on.
  auto is_answered = std::make_shared<std::atomic<bool>>(false);
  const auto answer = [call, is_answered](const absl::Status& status) {
    if (!is_answered->exchange(true)) call->Answer(status);
  };
  const absl::Status status = Guarded([&] {
    absl::Status begun = Begin(*call, gate, request_bytes, request);
    if (!begun.ok()) return begun;
    work([call, &gate, &reply, &reply_bytes, owner = std::move(owner), answer](absl::Status done) {
      if (done.ok()) done = Guarded([&] { return End(*call, gate, reply, reply_bytes); });
      answer(done);
    });
    return absl::OkStatus();
  });
  if (!status.ok()) answer(status);
  return call;
}

}  // namespace normserve
