// Makes calls through a Connection with deadlines, request ids and repetitions. Internal: not installed.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "normserve/call_options.h"
#include "normserve/connection.h"

namespace normserve::client {

// What Client and BatchNorm share. Immutable, thread-safe if the Connection is.
class Caller {
 public:
  Caller(std::shared_ptr<Connection> connection, ClientOptions options);

  // Each fills in the request's guards from `call`. Changes without a request_id are sent once.
  absl::StatusOr<Session> CreateSession(CreateSessionRequest request, const CallOptions& call) const;
  absl::StatusOr<Session> CloneSession(CloneSessionRequest request, const CallOptions& call) const;
  absl::StatusOr<std::vector<Session>> SetMode(SetModeRequest request, const CallOptions& call) const;
  absl::StatusOr<Session> SetParameters(SetParametersRequest request, const CallOptions& call) const;
  absl::StatusOr<std::vector<DeletedSession>> DeleteSession(DeleteSessionRequest request,
                                                            const CallOptions& call) const;
  absl::StatusOr<std::vector<Snapshot>> SnapshotState(SnapshotStateRequest request, const CallOptions& call) const;
  absl::StatusOr<std::vector<Session>> RestoreState(RestoreStateRequest request, const CallOptions& call) const;
  absl::Status DeleteSnapshot(DeleteSnapshotRequest request, const CallOptions& call) const;
  absl::StatusOr<ForwardResult> Forward(ForwardRequest request, const CallOptions& call) const;

  // Sends the input again where the server has dropped what it kept.
  absl::StatusOr<BackwardResult> Backward(BackwardRequest request, const CallOptions& call) const;

  absl::StatusOr<Session> GetSession(const std::string& name, bool full, const CallOptions& call) const;
  // Every page, within one deadline.
  absl::StatusOr<std::vector<Session>> ListAllSessions(ListSessionsRequest request, const CallOptions& call) const;
  absl::StatusOr<std::vector<Snapshot>> ListAllSnapshots(const std::string& name, const CallOptions& call) const;
  absl::StatusOr<std::vector<SessionStats>> GetStats(const GetStatsRequest& request, const CallOptions& call) const;
  absl::StatusOr<std::vector<Diagnosis>> Diagnose(const DiagnoseRequest& request, const CallOptions& call) const;
  absl::StatusOr<std::vector<Observed>> Observe(ObserveRequest request, const CallOptions& call) const;
  absl::StatusOr<std::vector<SessionMoments>> GetMoments(const GetMomentsRequest& request,
                                                         const CallOptions& call) const;
  absl::StatusOr<std::vector<Merged>> MergeMoments(MergeMomentsRequest request, const CallOptions& call) const;
  absl::StatusOr<std::vector<Calibrated>> Calibrate(CalibrateRequest request, const CallOptions& call) const;
  absl::StatusOr<ImportResult> ImportState(ImportStateRequest request) const;
  absl::StatusOr<Export> ExportState(const ExportStateRequest& request) const;
  absl::StatusOr<ServerInfo> GetServerInfo(const CallOptions& call) const;
  absl::StatusOr<Health> CheckHealth(const std::string& service, const CallOptions& call) const;

 private:
  absl::Time Deadline(const CallOptions& call) const;
  // Runs `attempt(deadline)` with the deadline that `call` asks for.
  template <typename Attempt>
  auto Run(const CallOptions& call, bool repeatable, Attempt attempt) const;

  const std::shared_ptr<Connection> connection_;
  const ClientOptions options_;
};

}  // namespace normserve::client
