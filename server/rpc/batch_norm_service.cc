#include "server/rpc/batch_norm_service.h"

#include "kernels/error_reason.h"
#include "server/rpc/backward_messages.h"
#include "server/rpc/forward_messages.h"
#include "server/rpc/message_call.h"
#include "server/rpc/server_info_message.h"
#include "server/rpc/session_messages.h"
#include "server/rpc/unary_call.h"
#include "server/session/backward_call.h"
#include "server/session/field_error.h"
#include "server/session/forward_call.h"

namespace normserve {

using Reactor = BatchNormServiceImpl::Reactor;

Reactor* BatchNormServiceImpl::CreateSession(Context* context, const grpc::ByteBuffer* request_bytes,
                                             grpc::ByteBuffer* reply_bytes) {
  v1::CreateSessionRequest request;
  v1::Session reply;
  return AnswerMessage(context, "CreateSession", *gate_, *request_bytes, request, reply, *reply_bytes,
                       [&]() -> absl::Status {
                         auto draft = ReadDraft(request);
                         if (!draft.ok()) return draft.status();
                         const auto created = registry_.Create(*std::move(draft));
                         if (!created.ok()) return created.status();
                         WriteDescription(*created, reply);
                         return absl::OkStatus();
                       });
}

Reactor* BatchNormServiceImpl::GetSession(Context* context, const grpc::ByteBuffer* request_bytes,
                                          grpc::ByteBuffer* reply_bytes) {
  v1::GetSessionRequest request;
  v1::Session reply;
  return AnswerMessage(context, "GetSession", *gate_, *request_bytes, request, reply, *reply_bytes,
                       [&]() -> absl::Status {
                         const auto with_vectors = ReadView(request.view());
                         if (!with_vectors.ok()) return with_vectors.status();
                         const auto session = registry_.Find(request.name());
                         if (!session.ok()) return session.status();
                         WriteSession(**session, *with_vectors, reply);
                         return absl::OkStatus();
                       });
}

Reactor* BatchNormServiceImpl::ListSessions(Context* context, const grpc::ByteBuffer* request_bytes,
                                            grpc::ByteBuffer* reply_bytes) {
  v1::ListSessionsRequest request;
  v1::ListSessionsReply reply;
  return AnswerMessage(context, "ListSessions", *gate_, *request_bytes, request, reply, *reply_bytes,
                       [&]() -> absl::Status {
                         auto page = registry_.List(request.prefix(), request.page_size(), request.page_token());
                         if (!page.ok()) return page.status();
                         for (const auto& session : page->sessions)
                           WriteSession(*session, /*with_vectors=*/false, *reply.add_sessions());
                         reply.set_next_page_token(page->next_page_token);
                         return absl::OkStatus();
                       });
}

Reactor* BatchNormServiceImpl::DeleteSession(Context* context, const grpc::ByteBuffer* request_bytes,
                                             grpc::ByteBuffer* reply_bytes) {
  v1::DeleteSessionRequest request;
  v1::DeleteSessionReply reply;
  return AnswerMessage(context, "DeleteSession", *gate_, *request_bytes, request, reply, *reply_bytes,
                       [&]() -> absl::Status {
                         const auto deletion = registry_.Delete(request.name(), ReadGuard(request));
                         if (!deletion.ok()) return deletion.status();
                         v1::DeletedSession* deleted = reply.add_sessions();
                         deleted->set_name(request.name());
                         deleted->set_uid(deletion->uid);
                         deleted->set_generation(deletion->generation);
                         return absl::OkStatus();
                       });
}

Reactor* BatchNormServiceImpl::CloneSession(Context* context, const grpc::ByteBuffer* request_bytes,
                                            grpc::ByteBuffer* reply_bytes) {
  v1::CloneSessionRequest request;
  v1::Session reply;
  return AnswerMessage(context, "CloneSession", *gate_, *request_bytes, request, reply, *reply_bytes,
                       [&]() -> absl::Status {
                         const auto clone = registry_.Clone(request.name(), ReadGuard(request), request.clone_name());
                         if (!clone.ok()) return clone.status();
                         WriteDescription(*clone, reply);
                         return absl::OkStatus();
                       });
}

Reactor* BatchNormServiceImpl::SetMode(Context* context, const grpc::ByteBuffer* request_bytes,
                                       grpc::ByteBuffer* reply_bytes) {
  v1::SetModeRequest request;
  v1::SetModeReply reply;
  return AnswerMessage(context, "SetMode", *gate_, *request_bytes, request, reply, *reply_bytes, [&]() -> absl::Status {
    const ChangeGuard guard = ReadGuard(request);
    if (absl::Status status = CheckGuardFields(guard); !status.ok()) return status;
    const auto mode = ReadMode(request.mode());
    if (!mode.ok()) return mode.status();
    if (!mode->has_value())
      return FieldError("mode", "mode is not set: send MODE_TRAIN (1), MODE_EVAL (2) or MODE_SHADOW (3)");
    const auto session = registry_.Find(request.name());
    if (!session.ok()) return session.status();
    const auto changed = (*session)->SetMode(guard, **mode);
    if (!changed.ok()) return changed.status();
    WriteDescription(*changed, *reply.add_sessions());
    return absl::OkStatus();
  });
}

Reactor* BatchNormServiceImpl::SetParameters(Context* context, const grpc::ByteBuffer* request_bytes,
                                             grpc::ByteBuffer* reply_bytes) {
  v1::SetParametersRequest request;
  v1::Session reply;
  return AnswerMessage(
      context, "SetParameters", *gate_, *request_bytes, request, reply, *reply_bytes, [&]() -> absl::Status {
        const ChangeGuard guard = ReadGuard(request);
        if (absl::Status status = CheckGuardFields(guard); !status.ok()) return status;
        const auto session = registry_.Find(request.name());
        if (!session.ok()) return session.status();
        const v1::Parameters& parameters = request.parameters();
        const auto changed = (*session)->SetParameters(guard, {parameters.weight().begin(), parameters.weight().end()},
                                                       {parameters.bias().begin(), parameters.bias().end()});
        if (!changed.ok()) return changed.status();
        WriteDescription(*changed, reply);
        return absl::OkStatus();
      });
}

Reactor* BatchNormServiceImpl::Forward(Context* context, const grpc::ByteBuffer* request, grpc::ByteBuffer* reply) {
  auto* call = new UnaryCall(context, "Forward");
  StartForward(call, *request, reply);
  return call;
}

void BatchNormServiceImpl::StartForward(UnaryCall* call, const grpc::ByteBuffer& request, grpc::ByteBuffer* reply) {
  if (absl::Status status = call->Enter(*gate_); !status.ok()) return call->Answer(status);
  auto bytes = gate_->TakeBytes(static_cast<int64_t>(request.Length()));
  if (!bytes.ok()) return call->Answer(bytes.status());
  auto parsed = ReadForwardRequest(request);
  // Only the parsed request keeps the message from now on, so it goes when the engine has read it. The object is not
  // const; gRPC only hands it out so.
  const_cast<grpc::ByteBuffer&>(request).Clear();
  if (!parsed.ok()) return call->Answer(parsed.status());
  if (absl::Status status = call->CheckSession(parsed->name); !status.ok()) return call->Answer(status);
  ForwardCall::Start(
      registry_, engine_, *std::move(parsed), [call] { return call->IsCancelled(); },
      [this, call, reply, bytes = *std::move(bytes)](absl::StatusOr<ForwardReply> result) mutable {
        const absl::Status status = result.status();
        if (status.ok()) *reply = WriteForwardReply(*result, KeepForBackward(*result), bytes);
        MakeRoomAfter(status);
        call->Answer(status);
      });
}

std::string BatchNormServiceImpl::KeepForBackward(const ForwardReply& reply) {
  if (!reply.saved.has_value() || reply.saved->input == nullptr) return "";
  return saved_forwards_.Keep(*reply.saved);
}

void BatchNormServiceImpl::MakeRoomAfter(const absl::Status& status) {
  if (status.ok()) return;
  const auto details = GetErrorDetails(status);
  if (details.has_value() && details->reason == ErrorReason::kDeviceMemory) saved_forwards_.Clear();
}

Reactor* BatchNormServiceImpl::Backward(Context* context, const grpc::ByteBuffer* request, grpc::ByteBuffer* reply) {
  auto* call = new UnaryCall(context, "Backward");
  StartBackwardCall(call, *request, reply);
  return call;
}

void BatchNormServiceImpl::StartBackwardCall(UnaryCall* call, const grpc::ByteBuffer& request,
                                             grpc::ByteBuffer* reply) {
  if (absl::Status status = call->Enter(*gate_); !status.ok()) return call->Answer(status);
  auto bytes = gate_->TakeBytes(static_cast<int64_t>(request.Length()));
  if (!bytes.ok()) return call->Answer(bytes.status());
  auto parsed = ReadBackwardRequest(request);
  // As in StartForward.
  const_cast<grpc::ByteBuffer&>(request).Clear();
  if (!parsed.ok()) return call->Answer(parsed.status());
  if (absl::Status status = call->CheckSession(parsed->name); !status.ok()) return call->Answer(status);
  StartBackward(registry_, engine_, saved_forwards_, *std::move(parsed),
                [this, call, reply, bytes = *std::move(bytes)](absl::StatusOr<BackwardReply> result) mutable {
                  const absl::Status status = result.status();
                  if (status.ok()) *reply = WriteBackwardReply(*result, bytes);
                  MakeRoomAfter(status);
                  call->Answer(status);
                });
}

Reactor* BatchNormServiceImpl::GetStats(Context* context, const grpc::ByteBuffer* request_bytes,
                                        grpc::ByteBuffer* reply_bytes) {
  v1::GetStatsRequest request;
  v1::GetStatsReply reply;
  return AnswerMessage(context, "GetStats", *gate_, *request_bytes, request, reply, *reply_bytes,
                       [&]() -> absl::Status {
                         const auto session = registry_.Find(request.name());
                         if (!session.ok()) return session.status();
                         return WriteStats(**session, request, *reply.add_sessions());
                       });
}

Reactor* BatchNormServiceImpl::GetServerInfo(Context* context, const grpc::ByteBuffer* request_bytes,
                                             grpc::ByteBuffer* reply_bytes) {
  v1::GetServerInfoRequest request;
  v1::ServerInfo reply;
  return AnswerMessage(context, "GetServerInfo", *gate_, *request_bytes, request, reply, *reply_bytes,
                       [&]() -> absl::Status {
                         WriteServerInfo(description_, registry_.limits(), registry_.GetUsage(), reply);
                         return absl::OkStatus();
                       });
}

}  // namespace normserve
