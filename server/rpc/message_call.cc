#include "server/rpc/message_call.h"

#include <google/protobuf/descriptor.h>
#include <grpcpp/support/proto_buffer_reader.h>
#include <grpcpp/support/proto_buffer_writer.h>

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

absl::Status Answer(UnaryCall& call, CallGate& gate, const grpc::ByteBuffer& request_bytes,
                    google::protobuf::Message& request, google::protobuf::Message& reply, grpc::ByteBuffer& reply_bytes,
                    absl::FunctionRef<absl::Status()> work) {
  absl::Status status = call.Enter(gate);
  if (status.ok()) status = Count(call, gate, static_cast<int64_t>(request_bytes.Length()));
  if (status.ok()) status = Parse(request_bytes, request);
  if (!status.ok()) return status;
  std::string scratch;
  if (const std::string* name = SessionName(request, scratch); name != nullptr) status = call.CheckSession(*name);
  if (status.ok()) status = CheckKeptFields(request);
  if (status.ok()) status = work();
  if (status.ok()) status = Count(call, gate, static_cast<int64_t>(reply.ByteSizeLong()));
  if (status.ok()) status = Serialise(reply, reply_bytes);
  return status;
}

}  // namespace

absl::Status OutOfMemory(const std::exception& exception) {
  return MakeError(absl::StatusCode::kResourceExhausted, ErrorReason::kLimitReached,
                   absl::StrCat("the server has no memory for this call (", exception.what(), ")"),
                   {{"limit", "memory"}});
}

grpc::ServerUnaryReactor* AnswerMessage(grpc::CallbackServerContext* context, absl::string_view method, CallGate& gate,
                                        const grpc::ByteBuffer& request_bytes, google::protobuf::Message& request,
                                        google::protobuf::Message& reply, grpc::ByteBuffer& reply_bytes,
                                        absl::FunctionRef<absl::Status()> work) {
  auto* call = new UnaryCall(context, method);
  absl::Status status;
  try {
    status = Answer(*call, gate, request_bytes, request, reply, reply_bytes, work);
  } catch (const std::exception& exception) {
    status = OutOfMemory(exception);
  }
  call->Answer(status);
  return call;
}

}  // namespace normserve
