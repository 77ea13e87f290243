// A Connection for tests with GoogleMock. Needs gmock, which the library itself does not.
#pragma once

#include <gmock/gmock.h>

#include <string>

#include "normserve/connection.h"

namespace normserve::client {

class MockConnection : public Connection {
 public:
  MOCK_METHOD(absl::StatusOr<Session>, CreateSession, (const CreateSessionRequest&, absl::Time), (override));
  MOCK_METHOD(absl::StatusOr<Session>, GetSession, (const std::string&, bool, absl::Time), (override));
  MOCK_METHOD(absl::StatusOr<ListSessionsReply>, ListSessions, (const ListSessionsRequest&, absl::Time), (override));
  MOCK_METHOD(absl::StatusOr<Session>, CloneSession, (const CloneSessionRequest&, absl::Time), (override));
  MOCK_METHOD(absl::StatusOr<std::vector<Session>>, SetMode, (const SetModeRequest&, absl::Time), (override));
  MOCK_METHOD(absl::StatusOr<Session>, SetParameters, (const SetParametersRequest&, absl::Time), (override));
  MOCK_METHOD(absl::StatusOr<std::vector<DeletedSession>>, DeleteSession, (const DeleteSessionRequest&, absl::Time),
              (override));
  MOCK_METHOD(absl::StatusOr<std::vector<Snapshot>>, SnapshotState, (const SnapshotStateRequest&, absl::Time),
              (override));
  MOCK_METHOD(absl::StatusOr<std::vector<Session>>, RestoreState, (const RestoreStateRequest&, absl::Time), (override));
  MOCK_METHOD(absl::StatusOr<ListSnapshotsReply>, ListSnapshots, (const ListSnapshotsRequest&, absl::Time), (override));
  MOCK_METHOD(absl::Status, DeleteSnapshot, (const DeleteSnapshotRequest&, absl::Time), (override));
  MOCK_METHOD(absl::StatusOr<ForwardResult>, Forward, (const ForwardRequest&, absl::Time), (override));
  MOCK_METHOD(absl::StatusOr<BackwardResult>, Backward, (const BackwardRequest&, absl::Time), (override));
  MOCK_METHOD(absl::StatusOr<std::vector<SessionStats>>, GetStats, (const GetStatsRequest&, absl::Time), (override));
  MOCK_METHOD(absl::StatusOr<std::vector<Diagnosis>>, Diagnose, (const DiagnoseRequest&, absl::Time), (override));
  MOCK_METHOD(absl::StatusOr<std::vector<Observed>>, Observe, (const ObserveRequest&, absl::Time), (override));
  MOCK_METHOD(absl::StatusOr<std::vector<SessionMoments>>, GetMoments, (const GetMomentsRequest&, absl::Time),
              (override));
  MOCK_METHOD(absl::StatusOr<std::vector<Merged>>, MergeMoments, (const MergeMomentsRequest&, absl::Time), (override));
  MOCK_METHOD(absl::StatusOr<std::vector<Calibrated>>, Calibrate, (const CalibrateRequest&, absl::Time), (override));
  MOCK_METHOD(absl::StatusOr<ImportResult>, ImportState, (const ImportStateRequest&, absl::Time), (override));
  MOCK_METHOD(absl::StatusOr<Export>, ExportState, (const ExportStateRequest&, absl::Time), (override));
  MOCK_METHOD(absl::StatusOr<ServerInfo>, GetServerInfo, (absl::Time), (override));
  MOCK_METHOD(absl::StatusOr<Health>, CheckHealth, (const std::string&, absl::Time), (override));
};

}  // namespace normserve::client
