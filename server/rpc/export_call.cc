#include "server/rpc/export_call.h"

#include <exception>
#include <utility>

#include "server/rpc/grpc_status.h"
#include "server/rpc/message_call.h"
#include "server/rpc/unary_call.h"

namespace normserve {
namespace {

// Of the file in one message: less than every client's default limit.
constexpr size_t kPieceBytes = size_t{1} << 20;
// A float32 in the file is a double in the state that is kept for it.
constexpr int64_t kStateFactor = 2;

}  // namespace

void ExportCall::Start(const grpc::ByteBuffer& request) {
  absl::Status status;
  try {
    status = Prepare(request);
    if (status.ok()) {
      v1::ExportStateReply reply;
      *reply.mutable_summary() = std::move(made_->summary);
      status = Write(reply);
    }
  } catch (const std::exception& exception) {
    status = OutOfMemory(exception);
  }
  if (!status.ok()) Answer(status);
}

absl::Status ExportCall::Prepare(const grpc::ByteBuffer& request_bytes) {
  auto pass = gate_.Enter();
  if (!pass.ok()) return pass.status();
  pass_ = *std::move(pass);
  v1::ExportStateRequest request;
  request_bytes_ = static_cast<int64_t>(request_bytes.Length());
  if (absl::Status status = ParseMessage(request_bytes, request); !status.ok()) return status;
  session_ = request.name();
  if (absl::Status status = CheckSessionMetadata(*context_, request.name()); !status.ok()) return status;
  const auto sessions = registry_.FindAll(request.name());
  if (!sessions.ok()) return sessions.status();
  auto made = MakeExport(request, *sessions, registry_.ObserveAll(*sessions));
  if (!made.ok()) return made.status();
  made_ = *std::move(made);
  auto bytes = gate_.TakeBytes(kStateFactor * made_->writer.size_bytes());
  if (!bytes.ok()) return bytes.status();
  bytes_ = *std::move(bytes);
  return absl::OkStatus();
}

absl::Status ExportCall::Write(const v1::ExportStateReply& reply) {
  message_.Clear();  // gRPC's writer takes an empty one
  if (absl::Status status = SerialiseMessage(reply, message_); !status.ok()) return status;
  reply_bytes_ += static_cast<int64_t>(message_.Length());
  StartWrite(&message_);
  return absl::OkStatus();
}

void ExportCall::OnWriteDone(bool ok) {
  if (!ok) return Answer(absl::CancelledError("the caller has gone away before the file was whole"));
  absl::Status status;
  try {
    v1::ExportStateReply reply;
    reply.set_data(made_->writer.Next(kPieceBytes));
    if (reply.data().empty()) return Answer(absl::OkStatus());
    status = Write(reply);
  } catch (const std::exception& exception) {
    status = OutOfMemory(exception);
  }
  if (!status.ok()) Answer(status);
}

void ExportCall::Answer(const absl::Status& status) {
  ReportCall(gate_.observer(),
             {.method = "ExportState",
              .session = session_,
              .peer = context_->peer(),
              .start = start_,
              .request_bytes = request_bytes_,
              .reply_bytes = reply_bytes_},
             status);
  Finish(ToGrpcStatus(status));
}

}  // namespace normserve
