// Between the library's own types and the protocol's messages. Internal: not installed.
#pragma once

#include <grpcpp/support/status.h>

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "normserve/connection.h"
#include "normserve/v1/batch_norm_service.pb.h"
#include "normserve/v1/session.pb.h"

namespace normserve::client {

// Code and text unchanged; details as payloads (error_info.h).
absl::Status FromGrpcStatus(const grpc::Status& status);

void CopyTo(const SessionConfig& config, v1::SessionConfig& message);

v1::CreateSessionRequest ToMessage(const CreateSessionRequest& request);
v1::ListSessionsRequest ToMessage(const ListSessionsRequest& request);
v1::CloneSessionRequest ToMessage(const CloneSessionRequest& request);
v1::SetModeRequest ToMessage(const SetModeRequest& request);
v1::SetParametersRequest ToMessage(const SetParametersRequest& request);
v1::DeleteSessionRequest ToMessage(const DeleteSessionRequest& request);
v1::SnapshotStateRequest ToMessage(const SnapshotStateRequest& request);
v1::RestoreStateRequest ToMessage(const RestoreStateRequest& request);
v1::ListSnapshotsRequest ToMessage(const ListSnapshotsRequest& request);
v1::DeleteSnapshotRequest ToMessage(const DeleteSnapshotRequest& request);
v1::GetStatsRequest ToMessage(const GetStatsRequest& request);
v1::WatchStatsRequest ToMessage(const WatchStatsRequest& request);
v1::DiagnoseRequest ToMessage(const DiagnoseRequest& request);
// Everything but the input.
v1::BackwardRequest ToMessage(const BackwardRequest& request);
v1::ForwardRequest ToMessage(const ForwardRequest& request);

// An enumerator's name as it is told to users; "UNKNOWN" for one that this library is too old for.
std::string WithoutPrefix(const std::string& name, absl::string_view prefix);

absl::Time ToTime(const google::protobuf::Timestamp& time);
google::protobuf::Timestamp ToTimestamp(absl::Time time);

// A mode that this library has no name for is kUnspecified.
Mode FromMessage(v1::Mode mode);
void WriteMoments(const Moments& moments, v1::Moments& message);
Moments FromMessage(const v1::Moments& message);
RunningStatistics FromMessage(const v1::RunningStatistics& message);
SessionStats FromMessage(const v1::SessionStatistics& message);
StatsUpdate FromMessage(const v1::WatchStatsReply& message);
Session FromMessage(const v1::Session& message);
// Of the one session asked for. INTERNAL: the reply holds none.
absl::StatusOr<std::vector<Session>> FromMessage(const v1::SetModeReply& message);
absl::StatusOr<std::vector<Snapshot>> FromMessage(const v1::SnapshotStateReply& message);
absl::StatusOr<std::vector<Session>> FromMessage(const v1::RestoreStateReply& message);
absl::StatusOr<std::vector<SessionStats>> FromMessage(const v1::GetStatsReply& message);
absl::StatusOr<std::vector<Diagnosis>> FromMessage(const v1::DiagnoseReply& message);
ListSessionsReply FromMessage(const v1::ListSessionsReply& message);
ListSnapshotsReply FromMessage(const v1::ListSnapshotsReply& message);
std::vector<DeletedSession> FromMessage(const v1::DeleteSessionReply& message);
ServerInfo FromMessage(const v1::ServerInfo& message);
// Everything but the output.
BackwardResult FromMessage(const v1::BackwardReply& message);
ForwardResult FromMessage(const v1::ForwardReply& message);

}  // namespace normserve::client
