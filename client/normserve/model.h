// A handle of the sessions of one model.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "normserve/call_options.h"
#include "normserve/connection.h"
#include "normserve/session.h"

namespace normserve::client {

class Caller;

// All sessions whose names begin with a prefix, such as the layers of "resnet50/". Each call is one RPC; a change is
// made of all of them or of none. Answers are in the order of the sessions' names. The handle holds the prefix alone.
//
// Thread safety: all methods are const and may be called from several threads at once; a handle may be copied cheaply.
//
// Errors of every method: NOT_FOUND if no session's name begins so; INVALID_ARGUMENT for an expected_generation or
// expected_uid, which go with a single session; beside those of BatchNorm's method, naming the session.
class Model {
 public:
  // With its '/' at the end.
  const std::string& prefix() const { return prefix_; }

  absl::StatusOr<std::vector<Session>> Train(const CallOptions& options = {}) const;
  absl::StatusOr<std::vector<Session>> Eval(const CallOptions& options = {}) const;
  absl::StatusOr<std::vector<Session>> SetMode(Mode mode, const CallOptions& options = {}) const;

  // The running statistics of all, as of one moment. `options` names no channels. RESOURCE_EXHAUSTED: more than a reply
  // may be long.
  absl::StatusOr<std::vector<SessionStats>> Stats(const StatsOptions& options = {}) const;

  // Why evaluation puts out something else than training, layer by layer, the worst first. Changes nothing.
  absl::StatusOr<std::vector<Diagnosis>> Diagnose(const DiagnoseOptions& options = {}) const;

  // Adds data (none: with options.reset) to what is observed beside the state, which stays as it is. INVALID_ARGUMENT
  // (PART_CONFLICT): other data came under the part id.
  absl::StatusOr<std::vector<Observed>> Observe(const Data& data, const ObserveOptions& options = {}) const;

  // The moments that are kept beside the state. Changes nothing.
  absl::StatusOr<std::vector<SessionMoments>> ReadMoments(const MomentsOptions& options = {}) const;

  // Brings parts to the merge `merge_id`, in any number of calls from any number of workers, or ends it
  // (MergeOptions::commit): what comes of them depends on the parts alone. Without parts it tells how the merge stands.
  // NOT_FOUND (COLLECTION_NOT_FOUND); FAILED_PRECONDITION (COLLECTION_COMMITTED, NOT_TRACKED); INVALID_ARGUMENT: a part
  // does not fit, or came before with other contents (PART_CONFLICT); RESOURCE_EXHAUSTED.
  absl::StatusOr<std::vector<Merged>> Merge(const std::string& merge_id, const std::vector<MomentsPart>& parts,
                                            const MergeOptions& options = {}) const;

  // Brings one batch to the calibration `calibration_id`, or ends it: the population's statistics take the running
  // ones' place. Errors as Merge.
  absl::StatusOr<std::vector<Calibrated>> Calibrate(const std::string& calibration_id, const Data& data,
                                                    const CalibrateOptions& options = {}) const;

  // Keeps the state of each under one name; goes back to those; forgets them.
  absl::StatusOr<std::vector<client::Snapshot>> Snapshot(const std::string& snapshot,
                                                         const CallOptions& options = {}) const;
  absl::StatusOr<std::vector<Session>> Restore(const std::string& snapshot, const CallOptions& options = {}) const;
  absl::Status DeleteSnapshot(const std::string& snapshot, const CallOptions& options = {}) const;

  // The state of all, as of one moment, as a safetensors file under PyTorch's names. Changes nothing.
  // FAILED_PRECONDITION: a conversion that is not exact (CONVENTION_MISMATCH), or a value that float32 does not hold
  // (NON_FINITE).
  absl::StatusOr<client::Export> Export(const ExportOptions& options = {}) const;

  // All snapshots, session by session, in the order of their names, read page by page within one deadline.
  absl::StatusOr<std::vector<client::Snapshot>> Snapshots(const CallOptions& options = {}) const;

  // All sessions below the prefix, in the order of their names, read page by page; none is no error.
  absl::StatusOr<std::vector<Session>> Sessions(const CallOptions& options = {}) const;

  // Forgets all sessions and their snapshots.
  absl::StatusOr<std::vector<DeletedSession>> Delete(const CallOptions& options = {}) const;

 private:
  friend class Client;
  Model(std::shared_ptr<const Caller> caller, std::string prefix);

  std::shared_ptr<const Caller> caller_;  // never null
  std::string prefix_;
};

}  // namespace normserve::client
