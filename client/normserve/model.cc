#include "normserve/model.h"

#include <utility>

#include "absl/strings/match.h"
#include "normserve/caller.h"

namespace normserve::client {

Model::Model(std::shared_ptr<const Caller> caller, std::string prefix)
    : caller_(std::move(caller)), prefix_(std::move(prefix)) {
  if (!absl::EndsWith(prefix_, "/")) prefix_ += "/";
}

absl::StatusOr<std::vector<Session>> Model::Train(const CallOptions& options) const {
  return SetMode(Mode::kTrain, options);
}

absl::StatusOr<std::vector<Session>> Model::Eval(const CallOptions& options) const {
  return SetMode(Mode::kEval, options);
}

absl::StatusOr<std::vector<Session>> Model::SetMode(Mode mode, const CallOptions& options) const {
  return caller_->SetMode({.name = prefix_, .mode = mode}, options);
}

absl::StatusOr<std::vector<SessionStats>> Model::Stats(const StatsOptions& options) const {
  return caller_->GetStats(StatsRequest(prefix_, options), options.call);
}

std::unique_ptr<StatsWatch> Model::Watch(const WatchOptions& options) const { return caller_->Watch(prefix_, options); }

absl::StatusOr<std::vector<Diagnosis>> Model::Diagnose(const DiagnoseOptions& options) const {
  return caller_->Diagnose({.name = prefix_,
                            .moments = options.moments,
                            .layers = options.layers,
                            .samples_per_batch = options.samples_per_batch,
                            .return_channels = options.return_channels},
                           options.call);
}

absl::StatusOr<std::vector<client::Snapshot>> Model::Snapshot(const std::string& snapshot,
                                                              const CallOptions& options) const {
  return caller_->SnapshotState({.name = prefix_, .snapshot = snapshot}, options);
}

absl::StatusOr<std::vector<Session>> Model::Restore(const std::string& snapshot, const CallOptions& options) const {
  return caller_->RestoreState({.name = prefix_, .snapshot = snapshot}, options);
}

absl::Status Model::DeleteSnapshot(const std::string& snapshot, const CallOptions& options) const {
  return caller_->DeleteSnapshot({.name = prefix_, .snapshot = snapshot}, options);
}

absl::StatusOr<client::Export> Model::Export(const ExportOptions& options) const {
  return caller_->ExportState({.name = prefix_, .options = options});
}

absl::StatusOr<std::vector<client::Snapshot>> Model::Snapshots(const CallOptions& options) const {
  return caller_->ListAllSnapshots(prefix_, options);
}

absl::StatusOr<std::vector<Session>> Model::Sessions(const CallOptions& options) const {
  auto sessions = caller_->ListAllSessions({.prefix = prefix_}, options);
  // A listing of a prefix has the session of that very name too, which is no layer of the model.
  if (sessions.ok()) std::erase_if(*sessions, [this](const Session& session) { return session.name + "/" == prefix_; });
  return sessions;
}

absl::StatusOr<std::vector<DeletedSession>> Model::Delete(const CallOptions& options) const {
  return caller_->DeleteSession({.name = prefix_}, options);
}

}  // namespace normserve::client
