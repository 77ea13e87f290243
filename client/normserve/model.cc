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
  return caller_->GetStats({.name = prefix_,
                            .first_channel = options.first_channel,
                            .num_channels = options.num_channels,
                            .return_last_batch = options.return_last_batch,
                            .return_shadow = options.return_shadow,
                            .view = options.view,
                            .compare_with = options.compare_with},
                           options.call);
}

absl::StatusOr<std::vector<Diagnosis>> Model::Diagnose(const DiagnoseOptions& options) const {
  return caller_->Diagnose({.name = prefix_,
                            .moments = options.moments,
                            .layers = options.layers,
                            .observed = options.observed,
                            .batch = options.batch,
                            .samples_per_batch = options.samples_per_batch,
                            .return_channels = options.return_channels},
                           options.call);
}

absl::StatusOr<std::vector<Observed>> Model::Observe(const Data& data, const ObserveOptions& options) const {
  return caller_->Observe(
      {.name = prefix_, .data = data, .part_id = options.part_id, .dry_run = options.dry_run, .reset = options.reset},
      options.call);
}

absl::StatusOr<std::vector<SessionMoments>> Model::ReadMoments(const MomentsOptions& options) const {
  return caller_->GetMoments({.name = prefix_,
                              .source = options.source,
                              .first_channel = options.first_channel,
                              .num_channels = options.num_channels},
                             options.call);
}

absl::StatusOr<std::vector<Merged>> Model::Merge(const std::string& merge_id, const std::vector<MomentsPart>& parts,
                                                 const MergeOptions& options) const {
  return caller_->MergeMoments({.name = prefix_,
                                .merge_id = merge_id,
                                .parts = parts,
                                .policy = options.policy,
                                .commit = options.commit,
                                .drop = options.drop},
                               options.call);
}

absl::StatusOr<std::vector<Calibrated>> Model::Calibrate(const std::string& calibration_id, const Data& data,
                                                         const CalibrateOptions& options) const {
  return caller_->Calibrate({.name = prefix_,
                             .calibration_id = calibration_id,
                             .data = data,
                             .part_id = options.part_id,
                             .estimator = options.estimator,
                             .commit = options.commit,
                             .to_snapshot = options.to_snapshot,
                             .drop = options.drop},
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
