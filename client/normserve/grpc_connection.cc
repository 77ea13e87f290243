#include "normserve/grpc_connection.h"

#include <google/protobuf/io/coded_stream.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <utility>

#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "normserve/checkpoint_message.h"
#include "normserve/forward_message.h"
#include "normserve/messages.h"
#include "normserve/population_message.h"
#include "normserve/v1/batch_norm_service.grpc.pb.h"

namespace normserve::client {
namespace {

constexpr char kForwardMethod[] = "/normserve.v1.BatchNormService/Forward";
constexpr char kBackwardMethod[] = "/normserve.v1.BatchNormService/Backward";
constexpr char kHealthMethod[] = "/grpc.health.v1.Health/Check";
// Lets a proxy route by session without reading the message.
constexpr char kSessionKey[] = "normserve-session";

// Sets deadline and routing. A name that may not travel in metadata stays out of it; the server refuses it anyway, and
// says why.
void Prepare(grpc::ClientContext& context, absl::Time deadline, const std::string& session = "") {
  if (deadline != absl::InfiniteFuture()) context.set_deadline(absl::ToChronoTime(deadline));
  const bool printable = std::all_of(session.begin(), session.end(), [](char c) { return c > ' ' && c <= '~'; });
  if (!session.empty() && printable && session.size() <= 255) context.AddMetadata(kSessionKey, session);
}

class GrpcConnection : public Connection {
 public:
  explicit GrpcConnection(std::shared_ptr<grpc::Channel> channel)
      : channel_(channel), stub_(v1::BatchNormService::NewStub(channel)), generic_stub_(channel) {}

  absl::StatusOr<Session> CreateSession(const CreateSessionRequest& request, absl::Time deadline) override {
    return Call<Session>(&v1::BatchNormService::Stub::CreateSession, ToMessage(request), deadline, request.name);
  }

  absl::StatusOr<Session> GetSession(const std::string& name, bool full, absl::Time deadline) override {
    v1::GetSessionRequest message;
    message.set_name(name);
    if (full) message.set_view(v1::SESSION_VIEW_FULL);
    return Call<Session>(&v1::BatchNormService::Stub::GetSession, message, deadline, name);
  }

  absl::StatusOr<ListSessionsReply> ListSessions(const ListSessionsRequest& request, absl::Time deadline) override {
    return Call<ListSessionsReply>(&v1::BatchNormService::Stub::ListSessions, ToMessage(request), deadline, "");
  }

  absl::StatusOr<Session> CloneSession(const CloneSessionRequest& request, absl::Time deadline) override {
    return Call<Session>(&v1::BatchNormService::Stub::CloneSession, ToMessage(request), deadline, request.name);
  }

  absl::StatusOr<std::vector<Session>> SetMode(const SetModeRequest& request, absl::Time deadline) override {
    return Call<std::vector<Session>>(&v1::BatchNormService::Stub::SetMode, ToMessage(request), deadline, request.name);
  }

  absl::StatusOr<Session> SetParameters(const SetParametersRequest& request, absl::Time deadline) override {
    return Call<Session>(&v1::BatchNormService::Stub::SetParameters, ToMessage(request), deadline, request.name);
  }

  absl::StatusOr<std::vector<DeletedSession>> DeleteSession(const DeleteSessionRequest& request,
                                                            absl::Time deadline) override {
    return Call<std::vector<DeletedSession>>(&v1::BatchNormService::Stub::DeleteSession, ToMessage(request), deadline,
                                             request.name);
  }

  absl::StatusOr<std::vector<Snapshot>> SnapshotState(const SnapshotStateRequest& request,
                                                      absl::Time deadline) override {
    return Call<std::vector<Snapshot>>(&v1::BatchNormService::Stub::SnapshotState, ToMessage(request), deadline,
                                       request.name);
  }

  absl::StatusOr<std::vector<Session>> RestoreState(const RestoreStateRequest& request, absl::Time deadline) override {
    return Call<std::vector<Session>>(&v1::BatchNormService::Stub::RestoreState, ToMessage(request), deadline,
                                      request.name);
  }

  absl::StatusOr<ListSnapshotsReply> ListSnapshots(const ListSnapshotsRequest& request, absl::Time deadline) override {
    return Call<ListSnapshotsReply>(&v1::BatchNormService::Stub::ListSnapshots, ToMessage(request), deadline,
                                    request.name);
  }

  absl::Status DeleteSnapshot(const DeleteSnapshotRequest& request, absl::Time deadline) override {
    grpc::ClientContext context;
    Prepare(context, deadline, request.name);
    v1::DeleteSnapshotReply reply;
    return FromGrpcStatus(stub_->DeleteSnapshot(&context, ToMessage(request), &reply));
  }

  absl::StatusOr<ForwardResult> Forward(const ForwardRequest& request, absl::Time deadline) override {
    absl::StatusOr<grpc::ByteBuffer> message = EncodeForwardRequest(request);
    if (!message.ok()) return message.status();
    absl::StatusOr<grpc::ByteBuffer> reply = RawCall(kForwardMethod, *message, deadline, request.name);
    if (!reply.ok()) return reply.status();
    return DecodeForwardReply(*reply);
  }

  absl::StatusOr<BackwardResult> Backward(const BackwardRequest& request, absl::Time deadline) override {
    absl::StatusOr<grpc::ByteBuffer> message = EncodeBackwardRequest(request);
    if (!message.ok()) return message.status();
    absl::StatusOr<grpc::ByteBuffer> reply = RawCall(kBackwardMethod, *message, deadline, request.name);
    if (!reply.ok()) return reply.status();
    return DecodeBackwardReply(*reply);
  }

  absl::StatusOr<std::vector<SessionStats>> GetStats(const GetStatsRequest& request, absl::Time deadline) override {
    return Call<std::vector<SessionStats>>(&v1::BatchNormService::Stub::GetStats, ToMessage(request), deadline,
                                           request.name);
  }

  absl::StatusOr<std::vector<Diagnosis>> Diagnose(const DiagnoseRequest& request, absl::Time deadline) override {
    return Call<std::vector<Diagnosis>>(&v1::BatchNormService::Stub::Diagnose, ToMessage(request), deadline,
                                        request.name);
  }

  absl::StatusOr<std::vector<Observed>> Observe(const ObserveRequest& request, absl::Time deadline) override {
    return Call<std::vector<Observed>>(&v1::BatchNormService::Stub::Observe, ToMessage(request), deadline,
                                       request.name);
  }

  absl::StatusOr<std::vector<SessionMoments>> GetMoments(const GetMomentsRequest& request,
                                                         absl::Time deadline) override {
    return Call<std::vector<SessionMoments>>(&v1::BatchNormService::Stub::GetMoments, ToMessage(request), deadline,
                                             request.name);
  }

  absl::StatusOr<std::vector<Merged>> MergeMoments(const MergeMomentsRequest& request, absl::Time deadline) override {
    return Call<std::vector<Merged>>(&v1::BatchNormService::Stub::MergeMoments, ToMessage(request), deadline,
                                     request.name);
  }

  absl::StatusOr<std::vector<Calibrated>> Calibrate(const CalibrateRequest& request, absl::Time deadline) override {
    return Call<std::vector<Calibrated>>(&v1::BatchNormService::Stub::Calibrate, ToMessage(request), deadline,
                                         request.name);
  }

  absl::StatusOr<ImportResult> ImportState(const ImportStateRequest& request, absl::Time deadline) override {
    absl::StatusOr<CheckpointPieces> pieces = CheckpointPieces::Open(request);
    if (!pieces.ok()) return pieces.status();
    WaitAShortWhile(deadline);
    grpc::ClientContext context;
    Prepare(context, deadline, request.name);
    v1::ImportStateReply reply;
    const auto writer = stub_->ImportState(&context, &reply);
    v1::ImportStateRequest message;
    *message.mutable_begin() = ToMessage(request);
    int64_t sent_bytes = 0;
    // A write that fails means that the server has ended the call, and Finish says why.
    while (writer->Write(message)) {
      absl::StatusOr<std::string> piece = pieces->Next();
      if (!piece.ok()) {
        context.TryCancel();
        writer->Finish();
        return piece.status();
      }
      if (request.options.progress && sent_bytes > 0) request.options.progress(sent_bytes, pieces->size_bytes());
      if (piece->empty()) {
        writer->WritesDone();
        break;
      }
      sent_bytes += static_cast<int64_t>(piece->size());
      message.set_data(*std::move(piece));
    }
    const grpc::Status status = writer->Finish();
    if (!status.ok()) return FromGrpcStatus(status);
    return FromMessage(reply);
  }

  absl::StatusOr<Export> ExportState(const ExportStateRequest& request, absl::Time deadline) override {
    WaitAShortWhile(deadline);
    grpc::ClientContext context;
    Prepare(context, deadline, request.name);
    const auto reader = stub_->ExportState(&context, ToMessage(request));
    Export result;
    int64_t size_bytes = 0;
    v1::ExportStateReply reply;
    while (reader->Read(&reply)) {
      if (reply.has_summary()) {
        size_bytes = reply.summary().size_bytes();
        result = FromMessage(reply.summary());
        continue;
      }
      result.file += reply.data();
      if (request.options.progress) request.options.progress(static_cast<int64_t>(result.file.size()), size_bytes);
    }
    const grpc::Status status = reader->Finish();
    if (!status.ok()) return FromGrpcStatus(status);
    return result;
  }

  absl::StatusOr<ServerInfo> GetServerInfo(absl::Time deadline) override {
    return Call<ServerInfo>(&v1::BatchNormService::Stub::GetServerInfo, v1::GetServerInfoRequest(), deadline, "");
  }

  absl::StatusOr<Health> CheckHealth(const std::string& service, absl::Time deadline) override {
    // HealthCheckRequest{service = 1} and HealthCheckResponse{status = 1} are written out: the messages are not part
    // of gRPC's installed library.
    std::string request;
    if (!service.empty()) request = std::string("\x0a") + static_cast<char>(service.size() & 0x7f) + service;
    if (service.size() > 127) return absl::InvalidArgumentError("service: at most 127 bytes");
    const grpc::Slice slice(request);
    absl::StatusOr<grpc::ByteBuffer> reply = RawCall(kHealthMethod, grpc::ByteBuffer(&slice, 1), deadline, "");
    if (!reply.ok()) return reply.status();
    grpc::Slice whole;
    if (!reply->DumpToSingleSlice(&whole).ok()) return absl::InternalError("the health reply cannot be read");
    if (whole.size() < 2 || whole.begin()[0] != 0x08) return Health::kUnknown;  // 0 is not sent
    const uint8_t status = whole.begin()[1];
    return status == 1 ? Health::kServing : status == 2 ? Health::kNotServing : Health::kUnknown;
  }

 private:
  // gRPC goes on connecting only while somebody waits, and a call that finds no connection does not: so after an
  // attempt that failed, the next would find the channel as it was.
  void WaitAShortWhile(absl::Time deadline) {
    const grpc_connectivity_state state = channel_->GetState(/*try_to_connect=*/false);
    if (state != GRPC_CHANNEL_TRANSIENT_FAILURE && state != GRPC_CHANNEL_CONNECTING) return;
    channel_->WaitForConnected(absl::ToChronoTime(std::min(deadline, absl::Now() + absl::Milliseconds(150))));
  }

  // One attempt of a call of messages.
  template <typename Result, typename Request, typename Reply>
  absl::StatusOr<Result> Call(grpc::Status (v1::BatchNormService::Stub::*method)(grpc::ClientContext*, const Request&,
                                                                                 Reply*),
                              const Request& request, absl::Time deadline, const std::string& session) {
    WaitAShortWhile(deadline);
    grpc::ClientContext context;
    Prepare(context, deadline, session);
    Reply reply;
    const grpc::Status status = (stub_.get()->*method)(&context, request, &reply);
    if (!status.ok()) return FromGrpcStatus(status);
    return FromMessage(reply);
  }

  // One attempt of a call of bytes.
  absl::StatusOr<grpc::ByteBuffer> RawCall(const char* method, const grpc::ByteBuffer& request, absl::Time deadline,
                                           const std::string& session) {
    WaitAShortWhile(deadline);
    grpc::ClientContext context;
    Prepare(context, deadline, session);
    grpc::ByteBuffer reply;
    grpc::Status status;
    absl::Notification done;
    generic_stub_.UnaryCall(&context, method, grpc::StubOptions(), &request, &reply, [&](grpc::Status result) {
      status = std::move(result);
      done.Notify();
    });
    done.WaitForNotification();
    if (!status.ok()) return FromGrpcStatus(status);
    return reply;
  }

  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::BatchNormService::Stub> stub_;
  grpc::GenericStub generic_stub_;
};

}  // namespace

std::shared_ptr<Connection> MakeGrpcConnection(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetMaxSendMessageSize(-1);
  // Repetitions are RetryLoop's, which knows what may be repeated; gRPC's buffer is too small for tensors.
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  // Come back soon after a server that starts again. GRPC_ARG_MIN_RECONNECT_BACKOFF_MS stays as it is: it is the time
  // that one attempt to connect is given, whatever its name says, and a distant server needs more than the backoff.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2000);
  return MakeGrpcConnection(grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments));
}

std::shared_ptr<Connection> MakeGrpcConnection(std::shared_ptr<grpc::Channel> channel) {
  return std::make_shared<GrpcConnection>(std::move(channel));
}

}  // namespace normserve::client
