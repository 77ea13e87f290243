#include "normserve/caller.h"

#include <algorithm>
#include <iterator>
#include <utility>
#include <variant>

#include "normserve/error_info.h"
#include "normserve/request_id.h"
#include "normserve/retry_loop.h"

namespace normserve::client {
namespace {

std::string RequestId(const CallOptions& call) {
  return call.request_id.has_value() ? *call.request_id : MakeRequestId();
}

ChangeGuards Guards(const CallOptions& call) {
  return {.request_id = RequestId(call),
          .expected_generation = call.expected_generation,
          .expected_uid = call.expected_uid};
}

// Whether `request` says by itself that it changes nothing, whatever the session's mode is.
bool IsRead(const ForwardRequest& request) {
  return request.update == Update::kNone || (request.update == Update::kUnspecified && request.mode == Mode::kEval);
}

}  // namespace

GetStatsRequest StatsRequest(const std::string& name, const StatsOptions& options) {
  return {.name = name,
          .first_channel = options.first_channel,
          .num_channels = options.num_channels,
          .return_last_batch = options.return_last_batch,
          .return_shadow = options.return_shadow,
          .view = options.view,
          .compare_with = options.compare_with,
          .history = options.history};
}

Caller::Caller(std::shared_ptr<Connection> connection, ClientOptions options)
    : connection_(std::move(connection)), options_(std::move(options)) {}

absl::Time Caller::Deadline(const CallOptions& call) const {
  return options_.clock.now() + call.timeout.value_or(options_.timeout);
}

template <typename Attempt>
auto Caller::Run(const CallOptions& call, bool repeatable, Attempt attempt) const {
  const absl::Time deadline = Deadline(call);
  return RunWithRetries(options_, deadline, repeatable, [&] { return attempt(deadline); });
}

absl::StatusOr<Session> Caller::CreateSession(CreateSessionRequest request, const CallOptions& call) const {
  request.request_id = RequestId(call);
  return Run(call, !request.request_id.empty(),
             [&](absl::Time deadline) { return connection_->CreateSession(request, deadline); });
}

absl::StatusOr<Session> Caller::CloneSession(CloneSessionRequest request, const CallOptions& call) const {
  request.guards = Guards(call);
  return Run(call, !request.guards.request_id.empty(),
             [&](absl::Time deadline) { return connection_->CloneSession(request, deadline); });
}

absl::StatusOr<std::vector<Session>> Caller::SetMode(SetModeRequest request, const CallOptions& call) const {
  request.guards = Guards(call);
  return Run(call, !request.guards.request_id.empty(),
             [&](absl::Time deadline) { return connection_->SetMode(request, deadline); });
}

absl::StatusOr<Session> Caller::SetParameters(SetParametersRequest request, const CallOptions& call) const {
  request.guards = Guards(call);
  return Run(call, !request.guards.request_id.empty(),
             [&](absl::Time deadline) { return connection_->SetParameters(request, deadline); });
}

absl::StatusOr<std::vector<DeletedSession>> Caller::DeleteSession(DeleteSessionRequest request,
                                                                  const CallOptions& call) const {
  request.guards = Guards(call);
  return Run(call, !request.guards.request_id.empty(),
             [&](absl::Time deadline) { return connection_->DeleteSession(request, deadline); });
}

absl::StatusOr<std::vector<Snapshot>> Caller::SnapshotState(SnapshotStateRequest request,
                                                            const CallOptions& call) const {
  request.guards = Guards(call);
  return Run(call, !request.guards.request_id.empty(),
             [&](absl::Time deadline) { return connection_->SnapshotState(request, deadline); });
}

absl::StatusOr<std::vector<Session>> Caller::RestoreState(RestoreStateRequest request, const CallOptions& call) const {
  request.guards = Guards(call);
  return Run(call, !request.guards.request_id.empty(),
             [&](absl::Time deadline) { return connection_->RestoreState(request, deadline); });
}

absl::Status Caller::DeleteSnapshot(DeleteSnapshotRequest request, const CallOptions& call) const {
  request.guards = Guards(call);
  return Run(call, !request.guards.request_id.empty(),
             [&](absl::Time deadline) { return connection_->DeleteSnapshot(request, deadline); });
}

absl::StatusOr<ForwardResult> Caller::Forward(ForwardRequest request, const CallOptions& call) const {
  request.guards = Guards(call);
  return Run(call, !request.guards.request_id.empty() || IsRead(request),
             [&](absl::Time deadline) { return connection_->Forward(request, deadline); });
}

absl::StatusOr<BackwardResult> Caller::Backward(BackwardRequest request, const CallOptions& call) const {
  request.expected_generation = call.expected_generation;
  request.expected_uid = call.expected_uid;
  const absl::Time deadline = Deadline(call);
  const auto attempt = [&] { return connection_->Backward(request, deadline); };
  if (!request.token.empty()) {
    absl::StatusOr<BackwardResult> result = RunWithRetries(options_, deadline, /*repeatable=*/true, attempt);
    const std::optional<ErrorInfo> info = GetErrorInfo(result.status());
    if (!info.has_value() || info->reason != "TOKEN_DROPPED") return result;
    request.token.clear();
  }
  absl::StatusOr<BackwardResult> result = RunWithRetries(options_, deadline, /*repeatable=*/true, attempt);
  if (result.ok()) result->resent = true;
  return result;
}

absl::StatusOr<Session> Caller::GetSession(const std::string& name, bool full, const CallOptions& call) const {
  return Run(call, true, [&](absl::Time deadline) { return connection_->GetSession(name, full, deadline); });
}

absl::StatusOr<std::vector<Session>> Caller::ListAllSessions(ListSessionsRequest request,
                                                             const CallOptions& call) const {
  const absl::Time deadline = Deadline(call);
  request.page_size = 1000;
  std::vector<Session> sessions;
  do {
    absl::StatusOr<ListSessionsReply> reply = RunWithRetries(
        options_, deadline, /*repeatable=*/true, [&] { return connection_->ListSessions(request, deadline); });
    if (!reply.ok()) return reply.status();
    std::move(reply->sessions.begin(), reply->sessions.end(), std::back_inserter(sessions));
    request.page_token = std::move(reply->next_page_token);
  } while (!request.page_token.empty());
  return sessions;
}

absl::StatusOr<std::vector<Snapshot>> Caller::ListAllSnapshots(const std::string& name, const CallOptions& call) const {
  const absl::Time deadline = Deadline(call);
  ListSnapshotsRequest request{.name = name, .page_size = 1000};
  std::vector<Snapshot> snapshots;
  do {
    absl::StatusOr<ListSnapshotsReply> reply = RunWithRetries(
        options_, deadline, /*repeatable=*/true, [&] { return connection_->ListSnapshots(request, deadline); });
    if (!reply.ok()) return reply.status();
    std::move(reply->snapshots.begin(), reply->snapshots.end(), std::back_inserter(snapshots));
    request.page_token = std::move(reply->next_page_token);
  } while (!request.page_token.empty());
  return snapshots;
}

absl::StatusOr<std::vector<SessionStats>> Caller::GetStats(const GetStatsRequest& request,
                                                           const CallOptions& call) const {
  return Run(call, true, [&](absl::Time deadline) { return connection_->GetStats(request, deadline); });
}

std::unique_ptr<StatsWatch> Caller::Watch(const std::string& name, const WatchOptions& options) const {
  return std::make_unique<StatsWatch>(connection_, options_,
                                      WatchStatsRequest{.stats = StatsRequest(name, options.stats),
                                                        .interval = options.interval,
                                                        .after_generation = options.after_generation,
                                                        .patience = options.stats.call.timeout});
}

absl::StatusOr<std::vector<Diagnosis>> Caller::Diagnose(const DiagnoseRequest& request, const CallOptions& call) const {
  return Run(call, true, [&](absl::Time deadline) { return connection_->Diagnose(request, deadline); });
}

absl::StatusOr<std::vector<Observed>> Caller::Observe(ObserveRequest request, const CallOptions& call) const {
  request.guards = Guards(call);
  return Run(call, request.dry_run || !request.guards.request_id.empty(),
             [&](absl::Time deadline) { return connection_->Observe(request, deadline); });
}

absl::StatusOr<std::vector<SessionMoments>> Caller::GetMoments(const GetMomentsRequest& request,
                                                               const CallOptions& call) const {
  return Run(call, true, [&](absl::Time deadline) { return connection_->GetMoments(request, deadline); });
}

absl::StatusOr<std::vector<Merged>> Caller::MergeMoments(MergeMomentsRequest request, const CallOptions& call) const {
  request.guards = Guards(call);
  return Run(call, !request.guards.request_id.empty(),
             [&](absl::Time deadline) { return connection_->MergeMoments(request, deadline); });
}

absl::StatusOr<std::vector<Calibrated>> Caller::Calibrate(CalibrateRequest request, const CallOptions& call) const {
  request.guards = Guards(call);
  return Run(call, !request.guards.request_id.empty(),
             [&](absl::Time deadline) { return connection_->Calibrate(request, deadline); });
}

absl::StatusOr<ImportResult> Caller::ImportState(ImportStateRequest request) const {
  request.request_id = RequestId(request.options.call);
  return Run(request.options.call, !request.request_id.empty(),
             [&](absl::Time deadline) { return connection_->ImportState(request, deadline); });
}

absl::StatusOr<Export> Caller::ExportState(const ExportStateRequest& request) const {
  return Run(request.options.call, true,
             [&](absl::Time deadline) { return connection_->ExportState(request, deadline); });
}

absl::StatusOr<ServerInfo> Caller::GetServerInfo(const CallOptions& call) const {
  return Run(call, true, [&](absl::Time deadline) { return connection_->GetServerInfo(deadline); });
}

absl::StatusOr<Health> Caller::CheckHealth(const std::string& service, const CallOptions& call) const {
  return Run(call, true, [&](absl::Time deadline) { return connection_->CheckHealth(service, deadline); });
}

}  // namespace normserve::client
