#include "server/rpc/batch_norm_service.h"

#include "absl/strings/match.h"
#include "kernels/error_reason.h"
#include "server/rpc/backward_messages.h"
#include "server/rpc/export_call.h"
#include "server/rpc/forward_messages.h"
#include "server/rpc/import_call.h"
#include "server/rpc/message_call.h"
#include "server/rpc/server_info_message.h"
#include "server/rpc/session_messages.h"
#include "server/rpc/stats_messages.h"
#include "server/rpc/unary_call.h"
#include "server/session/backward_call.h"
#include "server/session/field_error.h"
#include "server/session/forward_call.h"
#include "server/session/model.h"

namespace normserve {

using Reactor = BatchNormServiceImpl::Reactor;

template <typename Request>
absl::StatusOr<std::shared_ptr<Session>> BatchNormServiceImpl::FindToChange(const Request& request) {
  if (absl::Status status = CheckGuardFields(ReadGuard(request)); !status.ok()) return status;
  return registry_.Find(request.name());
}

template <typename Request, typename Change>
void BatchNormServiceImpl::ChangeNamed(const Request& request, MessageDone done, Change change) {
  if (absl::EndsWith(request.name(), "/")) {
    absl::Status status = CheckGuardFields(ReadGuard(request));
    if (!status.ok()) return std::move(done)(status);
    auto sessions = registry_.FindAll(request.name());
    if (!sessions.ok()) return std::move(done)(sessions.status());
    const Model model(request.name(), *std::move(sessions));
    return change(model, std::move(done));
  }
  const auto session = FindToChange(request);
  if (!session.ok()) return std::move(done)(session.status());
  change(**session, std::move(done));
}

Reactor* BatchNormServiceImpl::CreateSession(Context* context, const grpc::ByteBuffer* request_bytes,
                                             grpc::ByteBuffer* reply_bytes) {
  return AnswerChange<v1::CreateSessionRequest, v1::Session>(
      context, "CreateSession", *gate_, *request_bytes, *reply_bytes,
      [this](const auto& request, auto& reply, MessageDone done) {
        auto draft = ReadDraft(request);
        if (!draft.ok()) return std::move(done)(draft.status());
        registry_.Create(*std::move(draft), WriteAndEnd(std::move(done), [&reply](const SessionDescription& created) {
          WriteDescription(created, reply);
        }));
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
                         auto page = registry_.List(request.prefix(), request.page_size(), request.page_token(),
                                                    {request.label_filter().begin(), request.label_filter().end()});
                         if (!page.ok()) return page.status();
                         for (const SessionDescription& session : page->sessions)
                           WriteDescription(session, *reply.add_sessions());
                         reply.set_next_page_token(page->next_page_token);
                         return absl::OkStatus();
                       });
}

Reactor* BatchNormServiceImpl::DeleteSession(Context* context, const grpc::ByteBuffer* request_bytes,
                                             grpc::ByteBuffer* reply_bytes) {
  return AnswerChange<v1::DeleteSessionRequest, v1::DeleteSessionReply>(
      context, "DeleteSession", *gate_, *request_bytes, *reply_bytes,
      [this](const auto& request, auto& reply, MessageDone done) {
        auto answered = WriteEachAndEnd(std::move(done), [&request, &reply](const Deletion& deletion) {
          v1::DeletedSession* deleted = reply.add_sessions();
          deleted->set_name(deletion.name.empty() ? request.name() : deletion.name);
          deleted->set_uid(deletion.uid);
          deleted->set_generation(deletion.generation);
        });
        if (absl::EndsWith(request.name(), "/")) {
          registry_.DeleteModel(request.name(), ReadGuard(request), std::move(answered));
        } else {
          registry_.Delete(request.name(), ReadGuard(request), std::move(answered));
        }
      });
}

Reactor* BatchNormServiceImpl::CloneSession(Context* context, const grpc::ByteBuffer* request_bytes,
                                            grpc::ByteBuffer* reply_bytes) {
  return AnswerChange<v1::CloneSessionRequest, v1::Session>(
      context, "CloneSession", *gate_, *request_bytes, *reply_bytes,
      [this](const auto& request, auto& reply, MessageDone done) {
        registry_.Clone(request.name(), ReadGuard(request), request.clone_name(),
                        WriteAndEnd(std::move(done),
                                    [&reply](const SessionDescription& clone) { WriteDescription(clone, reply); }));
      });
}

Reactor* BatchNormServiceImpl::SetMode(Context* context, const grpc::ByteBuffer* request_bytes,
                                       grpc::ByteBuffer* reply_bytes) {
  return AnswerChange<v1::SetModeRequest, v1::SetModeReply>(
      context, "SetMode", *gate_, *request_bytes, *reply_bytes,
      [this](const auto& request, auto& reply, MessageDone done) {
        const auto mode = ReadMode(request.mode());
        if (!mode.ok()) return std::move(done)(mode.status());
        if (!mode->has_value()) {
          return std::move(done)(
              FieldError("mode", "mode is not set: send MODE_TRAIN (1), MODE_EVAL (2) or MODE_SHADOW (3)"));
        }
        ChangeNamed(request, std::move(done), [&](auto& named, MessageDone end) {
          named.SetMode(ReadGuard(request), **mode,
                        WriteEachAndEnd(std::move(end), [&reply](const SessionDescription& changed) {
                          WriteDescription(changed, *reply.add_sessions());
                        }));
        });
      });
}

Reactor* BatchNormServiceImpl::SetParameters(Context* context, const grpc::ByteBuffer* request_bytes,
                                             grpc::ByteBuffer* reply_bytes) {
  return AnswerChange<v1::SetParametersRequest, v1::Session>(
      context, "SetParameters", *gate_, *request_bytes, *reply_bytes,
      [this](const auto& request, auto& reply, MessageDone done) {
        const auto session = FindToChange(request);
        if (!session.ok()) return std::move(done)(session.status());
        const v1::Parameters& parameters = request.parameters();
        (*session)->SetParameters(ReadGuard(request), {parameters.weight().begin(), parameters.weight().end()},
                                  {parameters.bias().begin(), parameters.bias().end()},
                                  WriteAndEnd(std::move(done), [&reply](const SessionDescription& changed) {
                                    WriteDescription(changed, reply);
                                  }));
      });
}

Reactor* BatchNormServiceImpl::SnapshotState(Context* context, const grpc::ByteBuffer* request_bytes,
                                             grpc::ByteBuffer* reply_bytes) {
  return AnswerChange<v1::SnapshotStateRequest, v1::SnapshotStateReply>(
      context, "SnapshotState", *gate_, *request_bytes, *reply_bytes,
      [this](const auto& request, auto& reply, MessageDone done) {
        ChangeNamed(request, std::move(done), [&](auto& named, MessageDone end) {
          named.TakeSnapshot(ReadGuard(request), request.snapshot(),
                             WriteEachAndEnd(std::move(end), [&reply](const SnapshotDescription& snapshot) {
                               WriteSnapshot(snapshot, *reply.add_snapshots());
                             }));
        });
      });
}

Reactor* BatchNormServiceImpl::RestoreState(Context* context, const grpc::ByteBuffer* request_bytes,
                                            grpc::ByteBuffer* reply_bytes) {
  return AnswerChange<v1::RestoreStateRequest, v1::RestoreStateReply>(
      context, "RestoreState", *gate_, *request_bytes, *reply_bytes,
      [this](const auto& request, auto& reply, MessageDone done) {
        ChangeNamed(request, std::move(done), [&](auto& named, MessageDone end) {
          named.RestoreSnapshot(ReadGuard(request), request.snapshot(),
                                WriteEachAndEnd(std::move(end), [&reply](const SessionDescription& restored) {
                                  WriteDescription(restored, *reply.add_sessions());
                                }));
        });
      });
}

Reactor* BatchNormServiceImpl::ListSnapshots(Context* context, const grpc::ByteBuffer* request_bytes,
                                             grpc::ByteBuffer* reply_bytes) {
  v1::ListSnapshotsRequest request;
  v1::ListSnapshotsReply reply;
  return AnswerMessage(context, "ListSnapshots", *gate_, *request_bytes, request, reply, *reply_bytes,
                       [&]() -> absl::Status {
                         const auto sessions = registry_.FindAll(request.name());
                         if (!sessions.ok()) return sessions.status();
                         return WriteSnapshots(*sessions, registry_.ObserveAll(*sessions), request, reply);
                       });
}

Reactor* BatchNormServiceImpl::DeleteSnapshot(Context* context, const grpc::ByteBuffer* request_bytes,
                                              grpc::ByteBuffer* reply_bytes) {
  return AnswerChange<v1::DeleteSnapshotRequest, v1::DeleteSnapshotReply>(
      context, "DeleteSnapshot", *gate_, *request_bytes, *reply_bytes,
      [this](const auto& request, auto& reply, MessageDone done) {
        ChangeNamed(request, std::move(done), [&](auto& named, MessageDone end) {
          named.DeleteSnapshot(ReadGuard(request), request.snapshot(),
                               WriteEachAndEnd(std::move(end), [&reply](const SnapshotDescription& snapshot) {
                                 WriteSnapshot(snapshot, *reply.add_snapshots());
                               }));
        });
      });
}

Reactor* BatchNormServiceImpl::Forward(Context* context, const grpc::ByteBuffer* request, grpc::ByteBuffer* reply) {
  auto* call = new UnaryCall(context, "Forward", *request, *reply);
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
  auto* call = new UnaryCall(context, "Backward", *request, *reply);
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
  return AnswerMessage(
      context, "GetStats", *gate_, *request_bytes, request, reply, *reply_bytes, [&]() -> absl::Status {
        const auto sessions = registry_.FindAll(request.name());
        if (!sessions.ok()) return sessions.status();
        return WriteStats(*sessions, registry_.ObserveAll(*sessions), request, description_.max_message_bytes, reply);
      });
}

grpc::ServerReadReactor<grpc::ByteBuffer>* BatchNormServiceImpl::ImportState(Context* context,
                                                                             grpc::ByteBuffer* reply) {
  auto* call = new ImportCall(context, registry_, *gate_, reply);
  call->Start();
  return call;
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* BatchNormServiceImpl::ExportState(Context* context,
                                                                              const grpc::ByteBuffer* request) {
  auto* call = new ExportCall(context, registry_, *gate_);
  call->Start(*request);
  return call;
}

Reactor* BatchNormServiceImpl::GetServerInfo(Context* context, const grpc::ByteBuffer* request_bytes,
                                             grpc::ByteBuffer* reply_bytes) {
  v1::GetServerInfoRequest request;
  v1::ServerInfo reply;
  return AnswerMessage(context, "GetServerInfo", *gate_, *request_bytes, request, reply, *reply_bytes,
                       [&]() -> absl::Status {
                         WriteServerInfo(description_, registry_, reply);
                         return absl::OkStatus();
                       });
}

}  // namespace normserve
