#include "normserve/batch_norm.h"

#include <utility>

#include "normserve/caller.h"

namespace normserve::client {
namespace {

// Of what a call for one session answers with: one entry.
template <typename T>
absl::StatusOr<T> First(absl::StatusOr<std::vector<T>> all) {
  if (!all.ok()) return all.status();
  return std::move(all->front());
}

}  // namespace

BatchNorm::BatchNorm(std::shared_ptr<const Caller> caller, std::string name)
    : caller_(std::move(caller)), name_(std::move(name)) {}

absl::StatusOr<Session> BatchNorm::Train(const CallOptions& options) const { return SetMode(Mode::kTrain, options); }

absl::StatusOr<Session> BatchNorm::Eval(const CallOptions& options) const { return SetMode(Mode::kEval, options); }

absl::StatusOr<Session> BatchNorm::SetMode(Mode mode, const CallOptions& options) const {
  return First(caller_->SetMode({.name = name_, .mode = mode}, options));
}

absl::StatusOr<ForwardResult> BatchNorm::Forward(const TensorView& input, const ForwardOptions& options) const {
  return caller_->Forward({.name = name_,
                           .mode = options.mode,
                           .normalize_with = options.normalize_with,
                           .update = options.update,
                           .return_batch_moments = options.return_batch_moments,
                           .save_for_backward = options.save_for_backward,
                           .input = input},
                          options.call);
}

absl::StatusOr<BackwardResult> BatchNorm::Backward(const TensorView& grad_output, const SavedForward& saved,
                                                   const TensorView& input, const BackwardOptions& options) const {
  return caller_->Backward({.name = name_,
                            .token = saved.token,
                            .normalization = saved.normalization,
                            .input = input,
                            .stop_at_sums = options.stop_at_sums,
                            .start_from_sums = options.start_from_sums,
                            .release = options.release,
                            .grad_output = grad_output},
                           options.call);
}

absl::StatusOr<BatchNorm> BatchNorm::Clone(const std::string& clone_name, const CallOptions& options) const {
  absl::StatusOr<Session> session = caller_->CloneSession({.name = name_, .clone_name = clone_name}, options);
  if (!session.ok()) return session.status();
  return BatchNorm(caller_, session->name);
}

absl::StatusOr<SessionStats> BatchNorm::Stats(const CallOptions& options) const {
  return Stats(StatsOptions{.call = options});
}

absl::StatusOr<SessionStats> BatchNorm::Stats(int64_t first_channel, int64_t num_channels,
                                              const CallOptions& options) const {
  return Stats(StatsOptions{.first_channel = first_channel, .num_channels = num_channels, .call = options});
}

absl::StatusOr<SessionStats> BatchNorm::Stats(const StatsOptions& options) const {
  return First(caller_->GetStats({.name = name_,
                                  .first_channel = options.first_channel,
                                  .num_channels = options.num_channels,
                                  .return_last_batch = options.return_last_batch,
                                  .return_shadow = options.return_shadow,
                                  .view = options.view,
                                  .compare_with = options.compare_with},
                                 options.call));
}

absl::StatusOr<Diagnosis> BatchNorm::Diagnose(const DiagnoseOptions& options) const {
  return First(caller_->Diagnose({.name = name_,
                                  .moments = options.moments,
                                  .layers = options.layers,
                                  .observed = options.observed,
                                  .batch = options.batch,
                                  .samples_per_batch = options.samples_per_batch,
                                  .return_channels = options.return_channels},
                                 options.call));
}

absl::StatusOr<Observed> BatchNorm::Observe(const Data& data, const ObserveOptions& options) const {
  return First(caller_->Observe(
      {.name = name_, .data = data, .part_id = options.part_id, .dry_run = options.dry_run, .reset = options.reset},
      options.call));
}

absl::StatusOr<SessionMoments> BatchNorm::ReadMoments(const MomentsOptions& options) const {
  return First(caller_->GetMoments({.name = name_,
                                    .source = options.source,
                                    .first_channel = options.first_channel,
                                    .num_channels = options.num_channels},
                                   options.call));
}

absl::StatusOr<Merged> BatchNorm::Merge(const std::string& merge_id, const std::vector<MomentsPart>& parts,
                                        const MergeOptions& options) const {
  return First(caller_->MergeMoments({.name = name_,
                                      .merge_id = merge_id,
                                      .parts = parts,
                                      .policy = options.policy,
                                      .commit = options.commit,
                                      .drop = options.drop},
                                     options.call));
}

absl::StatusOr<Calibrated> BatchNorm::Calibrate(const std::string& calibration_id, const Data& data,
                                                const CalibrateOptions& options) const {
  return First(caller_->Calibrate({.name = name_,
                                   .calibration_id = calibration_id,
                                   .data = data,
                                   .part_id = options.part_id,
                                   .estimator = options.estimator,
                                   .commit = options.commit,
                                   .to_snapshot = options.to_snapshot,
                                   .drop = options.drop},
                                  options.call));
}

absl::StatusOr<Session> BatchNorm::SetParameters(const Parameters& parameters, const CallOptions& options) const {
  return caller_->SetParameters({.name = name_, .parameters = parameters}, options);
}

absl::StatusOr<client::Snapshot> BatchNorm::Snapshot(const std::string& snapshot, const CallOptions& options) const {
  return First(caller_->SnapshotState({.name = name_, .snapshot = snapshot}, options));
}

absl::StatusOr<Session> BatchNorm::Restore(const std::string& snapshot, const CallOptions& options) const {
  return First(caller_->RestoreState({.name = name_, .snapshot = snapshot}, options));
}

absl::StatusOr<std::vector<client::Snapshot>> BatchNorm::Snapshots(const CallOptions& options) const {
  return caller_->ListAllSnapshots(name_, options);
}

absl::Status BatchNorm::DeleteSnapshot(const std::string& snapshot, const CallOptions& options) const {
  return caller_->DeleteSnapshot({.name = name_, .snapshot = snapshot}, options);
}

absl::StatusOr<Session> BatchNorm::Describe(const CallOptions& options) const {
  return caller_->GetSession(name_, true, options);
}

absl::Status BatchNorm::Delete(const CallOptions& options) const {
  return caller_->DeleteSession({.name = name_}, options).status();
}

absl::StatusOr<client::Export> BatchNorm::Export(const ExportOptions& options) const {
  return caller_->ExportState({.name = name_, .options = options});
}

}  // namespace normserve::client
