// The gRPC service: parse, call the session domain, map the status, reply.
#pragma once

#include <grpcpp/support/byte_buffer.h>

#include <memory>
#include <string>
#include <utility>

#include "kernels/engine.h"
#include "normserve/v1/batch_norm_service.grpc.pb.h"
#include "server/rpc/call_gate.h"
#include "server/rpc/message_call.h"
#include "server/rpc/server_description.h"
#include "server/rpc/unary_call.h"
#include "server/session/forward_request.h"
#include "server/session/saved_forward_cache.h"
#include "server/session/session_registry.h"

namespace normserve {

// Every method is raw and uses gRPC's callback API: Forward and Backward so that tensors are never copied into a
// message, the others as AnswerMessage says.
using BatchNormServiceBase = v1::BatchNormService::WithRawCallbackMethod_CreateSession<
    v1::BatchNormService::WithRawCallbackMethod_GetSession<v1::BatchNormService::WithRawCallbackMethod_ListSessions<
        v1::BatchNormService::WithRawCallbackMethod_DeleteSession<v1::BatchNormService::WithRawCallbackMethod_CloneSession<
            v1::BatchNormService::WithRawCallbackMethod_SetMode<v1::BatchNormService::WithRawCallbackMethod_SetParameters<
                v1::BatchNormService::WithRawCallbackMethod_Forward<v1::BatchNormService::WithRawCallbackMethod_Backward<
                    v1::BatchNormService::WithRawCallbackMethod_GetStats<
                        v1::BatchNormService::WithRawCallbackMethod_SnapshotState<
                            v1::BatchNormService::WithRawCallbackMethod_RestoreState<
                                v1::BatchNormService::WithRawCallbackMethod_ListSnapshots<
                                    v1::BatchNormService::WithRawCallbackMethod_DeleteSnapshot<
                                        v1::BatchNormService::WithRawCallbackMethod_Diagnose<
                                            v1::BatchNormService::WithRawCallbackMethod_ImportState<
                                                v1::BatchNormService::WithRawCallbackMethod_ExportState<
                                                    v1::BatchNormService::WithRawCallbackMethod_Observe<
                                                        v1::BatchNormService::WithRawCallbackMethod_GetMoments<
                                                            v1::BatchNormService::WithRawCallbackMethod_MergeMoments<
                                                                v1::BatchNormService::WithRawCallbackMethod_Calibrate<
                                                                    v1::BatchNormService::
                                                                        WithRawCallbackMethod_GetServerInfo<
                                                                            v1::BatchNormService::
                                                                                Service>>>>>>>>>>>>>>>>>>>>>>;

// Methods are in batch_norm_service.cc, those about populations in population_methods.cc.
//
// Thread-safe. No method holds a lock or waits while a device works or a store writes.
class BatchNormServiceImpl final : public BatchNormServiceBase {
 public:
  // `registry`, `engine` and `saved_forwards` outlive the service.
  BatchNormServiceImpl(SessionRegistry& registry, Engine& engine, SavedForwardCache& saved_forwards,
                       std::shared_ptr<CallGate> gate, ServerDescription description)
      : registry_(registry),
        engine_(engine),
        saved_forwards_(saved_forwards),
        gate_(std::move(gate)),
        description_(std::move(description)) {}

  using Context = grpc::CallbackServerContext;
  using Reactor = grpc::ServerUnaryReactor;

  Reactor* CreateSession(Context* context, const grpc::ByteBuffer* request, grpc::ByteBuffer* reply) override;
  Reactor* GetSession(Context* context, const grpc::ByteBuffer* request, grpc::ByteBuffer* reply) override;
  Reactor* ListSessions(Context* context, const grpc::ByteBuffer* request, grpc::ByteBuffer* reply) override;
  Reactor* DeleteSession(Context* context, const grpc::ByteBuffer* request, grpc::ByteBuffer* reply) override;
  Reactor* CloneSession(Context* context, const grpc::ByteBuffer* request, grpc::ByteBuffer* reply) override;
  Reactor* SetMode(Context* context, const grpc::ByteBuffer* request, grpc::ByteBuffer* reply) override;
  Reactor* SetParameters(Context* context, const grpc::ByteBuffer* request, grpc::ByteBuffer* reply) override;
  Reactor* Forward(Context* context, const grpc::ByteBuffer* request, grpc::ByteBuffer* reply) override;
  Reactor* Backward(Context* context, const grpc::ByteBuffer* request, grpc::ByteBuffer* reply) override;
  Reactor* GetStats(Context* context, const grpc::ByteBuffer* request, grpc::ByteBuffer* reply) override;
  Reactor* SnapshotState(Context* context, const grpc::ByteBuffer* request, grpc::ByteBuffer* reply) override;
  Reactor* RestoreState(Context* context, const grpc::ByteBuffer* request, grpc::ByteBuffer* reply) override;
  Reactor* ListSnapshots(Context* context, const grpc::ByteBuffer* request, grpc::ByteBuffer* reply) override;
  Reactor* DeleteSnapshot(Context* context, const grpc::ByteBuffer* request, grpc::ByteBuffer* reply) override;
  Reactor* Diagnose(Context* context, const grpc::ByteBuffer* request, grpc::ByteBuffer* reply) override;
  grpc::ServerReadReactor<grpc::ByteBuffer>* ImportState(Context* context, grpc::ByteBuffer* reply) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* ExportState(Context* context, const grpc::ByteBuffer* request) override;
  Reactor* Observe(Context* context, const grpc::ByteBuffer* request, grpc::ByteBuffer* reply) override;
  Reactor* GetMoments(Context* context, const grpc::ByteBuffer* request, grpc::ByteBuffer* reply) override;
  Reactor* MergeMoments(Context* context, const grpc::ByteBuffer* request, grpc::ByteBuffer* reply) override;
  Reactor* Calibrate(Context* context, const grpc::ByteBuffer* request, grpc::ByteBuffer* reply) override;
  Reactor* GetServerInfo(Context* context, const grpc::ByteBuffer* request, grpc::ByteBuffer* reply) override;

 private:
  void StartForward(UnaryCall* call, const grpc::ByteBuffer& request, grpc::ByteBuffer* reply);

  void StartBackwardCall(UnaryCall* call, const grpc::ByteBuffer& request, grpc::ByteBuffer* reply);
  // The session that a request is about, if its guards are legal.
  template <typename Request>
  absl::StatusOr<std::shared_ptr<Session>> FindToChange(const Request& request);
  // Calls `change` with the session or the model that the request names, and what ends the call.
  template <typename Request, typename Change>
  void ChangeNamed(const Request& request, MessageDone done, Change change);
  // Keeps the input that a Forward saved; its token, or nothing.
  std::string KeepForBackward(const ForwardReply& reply);
  // Where the device had no memory for a call, what is kept for others goes, so that its repeat finds some.
  void MakeRoomAfter(const absl::Status& status);

  SessionRegistry& registry_;
  Engine& engine_;
  SavedForwardCache& saved_forwards_;
  const std::shared_ptr<CallGate> gate_;
  const ServerDescription description_;
};

}  // namespace normserve
