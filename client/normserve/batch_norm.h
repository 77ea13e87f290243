// A handle of one session, used as nn.BatchNorm2d is.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "normserve/call_options.h"
#include "normserve/connection.h"
#include "normserve/session.h"
#include "normserve/tensor.h"

namespace normserve::client {

class Caller;

// One batch-norm layer on the server. The handle holds the session's name and nothing of its state: several handles,
// also in other programs, may drive one session, and dropping a handle does not delete the session.
//
// Thread safety: all methods are const and may be called from several threads at once; a handle may be copied cheaply.
// Calls block until the reply is there or the deadline (ClientOptions::timeout, 30 s) has passed.
//
// Errors of every method: NOT_FOUND if there is no such session; ABORTED if an expected_generation or expected_uid is
// not met; UNAVAILABLE, DEADLINE_EXCEEDED and CANCELLED mean that the outcome of a change is unknown: repeat it with
// the same request_id. error_info.h reads the server's reason.
class BatchNorm {
 public:
  const std::string& name() const { return name_; }

  // Training mode: a Forward normalises with the batch and updates the running statistics.
  absl::StatusOr<Session> Train(const CallOptions& options = {}) const;
  // Evaluation mode: a Forward normalises with the running statistics and changes nothing.
  absl::StatusOr<Session> Eval(const CallOptions& options = {}) const;
  absl::StatusOr<Session> SetMode(Mode mode, const CallOptions& options = {}) const;

  // Runs `input`, [N, C, *] (a Tensor will do), through the layer. Commits everything or nothing.
  // INVALID_ARGUMENT: the batch does not fit the session, holds one value per channel in training, or is not finite.
  absl::StatusOr<ForwardResult> Forward(const TensorView& input, const ForwardOptions& options = {}) const;

  // The gradients of the Forward that gave `saved` (ForwardOptions::save_for_backward), for the gradient of its output.
  // `input` is that Forward's input: it is sent only if the server has dropped what it kept. Changes nothing.
  // INVALID_ARGUMENT: the tensors do not fit each other or the session.
  absl::StatusOr<BackwardResult> Backward(const TensorView& grad_output, const SavedForward& saved,
                                          const TensorView& input, const BackwardOptions& options = {}) const;

  // copy.deepcopy: a session named `clone_name` (empty: the server makes a name) with the same state bit for bit,
  // independent from then on and without snapshots. ALREADY_EXISTS: the name is taken.
  absl::StatusOr<BatchNorm> Clone(const std::string& clone_name = "", const CallOptions& options = {}) const;

  // The running statistics. Changes nothing.
  absl::StatusOr<SessionStats> Stats(const CallOptions& options = {}) const;
  // The same of channels first_channel <= c < first_channel + num_channels (0: all from there on).
  absl::StatusOr<SessionStats> Stats(int64_t first_channel, int64_t num_channels,
                                     const CallOptions& options = {}) const;

  // The same, as a number a channel or summed up; with the moments that are kept beside the state, or compared with
  // them.
  absl::StatusOr<SessionStats> Stats(const StatsOptions& options) const;

  // Why evaluation puts out something else than training here, how much, and what to do. Changes nothing.
  absl::StatusOr<Diagnosis> Diagnose(const DiagnoseOptions& options = {}) const;

  // Adds data (none: with options.reset) to what is observed beside the state, which stays as it is. INVALID_ARGUMENT
  // (PART_CONFLICT): other data came under the part id.
  absl::StatusOr<Observed> Observe(const Data& data, const ObserveOptions& options = {}) const;

  // The moments that are kept beside the state. Changes nothing.
  absl::StatusOr<SessionMoments> ReadMoments(const MomentsOptions& options = {}) const;

  // Brings parts to the merge `merge_id`, in any number of calls from any number of workers, or ends it
  // (MergeOptions::commit): what comes of them depends on the parts alone. Without parts it tells how the merge stands.
  // NOT_FOUND (COLLECTION_NOT_FOUND); FAILED_PRECONDITION (COLLECTION_COMMITTED, NOT_TRACKED); INVALID_ARGUMENT: a part
  // does not fit, or came before with other contents (PART_CONFLICT); RESOURCE_EXHAUSTED.
  absl::StatusOr<Merged> Merge(const std::string& merge_id, const std::vector<MomentsPart>& parts,
                               const MergeOptions& options = {}) const;

  // Brings one batch to the calibration `calibration_id`, or ends it: the population's statistics take the running
  // ones' place. Errors as Merge.
  absl::StatusOr<Calibrated> Calibrate(const std::string& calibration_id, const Data& data,
                                       const CalibrateOptions& options = {}) const;

  // Replaces weight, bias or both; an empty one stays as it is.
  absl::StatusOr<Session> SetParameters(const Parameters& parameters, const CallOptions& options = {}) const;

  // Keeps the state, byte-exact, under `snapshot`: one segment of a session's name. Makes no generation.
  // ALREADY_EXISTS: the name is taken. RESOURCE_EXHAUSTED: too many snapshots or bytes.
  absl::StatusOr<client::Snapshot> Snapshot(const std::string& snapshot, const CallOptions& options = {}) const;

  // Goes back to `snapshot` as one new generation: mode, parameters and statistics are those that were kept. The
  // snapshot stays; a Forward admitted before that would have updated is ABORTED. NOT_FOUND: no such snapshot.
  absl::StatusOr<Session> Restore(const std::string& snapshot, const CallOptions& options = {}) const;

  // All snapshots in the order of their names, read page by page within one deadline. Changes nothing.
  absl::StatusOr<std::vector<client::Snapshot>> Snapshots(const CallOptions& options = {}) const;

  // Forgets one snapshot. Makes no generation. NOT_FOUND: no such snapshot.
  absl::Status DeleteSnapshot(const std::string& snapshot, const CallOptions& options = {}) const;

  // Everything about the session, parameters and statistics too. Changes nothing.
  absl::StatusOr<Session> Describe(const CallOptions& options = {}) const;

  // Forgets the session and its snapshots.
  absl::Status Delete(const CallOptions& options = {}) const;

  // The state of the session as a safetensors file under PyTorch's names. Changes nothing. FAILED_PRECONDITION: a
  // conversion that is not exact (CONVENTION_MISMATCH), or a value that float32 does not hold (NON_FINITE).
  absl::StatusOr<client::Export> Export(const ExportOptions& options = {}) const;

 private:
  friend class Client;
  BatchNorm(std::shared_ptr<const Caller> caller, std::string name);

  std::shared_ptr<const Caller> caller_;  // never null
  std::string name_;
};

}  // namespace normserve::client
