// The gRPC service: parse, call the session domain, map the status, reply.
#pragma once

#include <grpcpp/support/byte_buffer.h>

#include <memory>
#include <utility>

#include "absl/functional/function_ref.h"
#include "kernels/engine.h"
#include "normserve/v1/batch_norm_service.grpc.pb.h"
#include "server/rpc/call_gate.h"
#include "server/rpc/server_description.h"
#include "server/session/session_registry.h"

namespace normserve {

// Forward is raw, so that its tensor is never copied into a message; all methods use gRPC's callback API.
using BatchNormServiceBase = v1::BatchNormService::WithRawCallbackMethod_Forward<
    v1::BatchNormService::WithCallbackMethod_CreateSession<v1::BatchNormService::WithCallbackMethod_GetSession<
        v1::BatchNormService::WithCallbackMethod_ListSessions<v1::BatchNormService::WithCallbackMethod_DeleteSession<
            v1::BatchNormService::WithCallbackMethod_CloneSession<
                v1::BatchNormService::WithCallbackMethod_SetMode<v1::BatchNormService::WithCallbackMethod_SetParameters<
                    v1::BatchNormService::WithCallbackMethod_GetStats<
                        v1::BatchNormService::WithCallbackMethod_GetServerInfo<v1::BatchNormService::Service>>>>>>>>>>;

// Thread-safe. No method holds a lock or waits while a device works.
class BatchNormServiceImpl final : public BatchNormServiceBase {
 public:
  // `registry` and `engine` outlive the service.
  BatchNormServiceImpl(SessionRegistry& registry, Engine& engine, std::shared_ptr<CallGate> gate,
                       ServerDescription description)
      : registry_(registry), engine_(engine), gate_(std::move(gate)), description_(std::move(description)) {}

  using Context = grpc::CallbackServerContext;
  using Reactor = grpc::ServerUnaryReactor;

  Reactor* CreateSession(Context* context, const v1::CreateSessionRequest* request, v1::Session* reply) override;
  Reactor* GetSession(Context* context, const v1::GetSessionRequest* request, v1::Session* reply) override;
  Reactor* ListSessions(Context* context, const v1::ListSessionsRequest* request,
                        v1::ListSessionsReply* reply) override;
  Reactor* DeleteSession(Context* context, const v1::DeleteSessionRequest* request,
                         v1::DeleteSessionReply* reply) override;
  Reactor* CloneSession(Context* context, const v1::CloneSessionRequest* request, v1::Session* reply) override;
  Reactor* SetMode(Context* context, const v1::SetModeRequest* request, v1::SetModeReply* reply) override;
  Reactor* SetParameters(Context* context, const v1::SetParametersRequest* request, v1::Session* reply) override;
  Reactor* Forward(Context* context, const grpc::ByteBuffer* request, grpc::ByteBuffer* reply) override;
  Reactor* GetStats(Context* context, const v1::GetStatsRequest* request, v1::GetStatsReply* reply) override;
  Reactor* GetServerInfo(Context* context, const v1::GetServerInfoRequest* request, v1::ServerInfo* reply) override;

 private:
  // Lets the call in, runs `work` and answers with its status.
  Reactor* Answer(Context* context, absl::string_view method, const google::protobuf::Message& request,
                  absl::FunctionRef<absl::Status()> work);
  // The same for a call about one session, whose name the metadata may repeat.
  Reactor* AnswerFor(Context* context, absl::string_view method, const google::protobuf::Message& request,
                     absl::string_view name, absl::FunctionRef<absl::Status()> work);

  SessionRegistry& registry_;
  Engine& engine_;
  const std::shared_ptr<CallGate> gate_;
  const ServerDescription description_;
};

}  // namespace normserve
