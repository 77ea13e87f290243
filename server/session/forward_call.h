// One Forward on its way: from the checks over the engine to the commit.
#pragma once

#include <atomic>
#include <functional>
#include <memory>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "kernels/engine.h"
#include "server/session/forward_request.h"
#include "server/session/session_registry.h"

namespace normserve {

// Whether the caller has gone away or its time is up. Asked once, right before a commit, from any thread.
using IsCancelled = std::function<bool()>;
using ForwardReplied = absl::AnyInvocable<void(absl::StatusOr<ForwardReply>) &&>;

// Runs one batch through the session it names. Kept alive by the engine's callback.
//
// An updating call commits everything or, whatever went wrong before, nothing. The same request_id is committed once:
// a repeat, also one that runs beside the first, is computed again with what the first was computed with.
class ForwardCall : public std::enable_shared_from_this<ForwardCall> {
 public:
  // Calls `replied` exactly once, before this returns (refusals, empty batches) or from a thread of the engine's or the
  // store's. Never
  // waits for the device. `registry` and `engine` outlive the call.
  //
  // NOT_FOUND: no such session. INVALID_ARGUMENT: the batch does not fit the session, has one value per channel in
  // training, or (if it updates) is not finite. ABORTED, CANCELLED, and what the engine says: nothing was changed.
  static void Start(SessionRegistry& registry, Engine& engine, ForwardRequest request, IsCancelled is_cancelled,
                    ForwardReplied replied);

 private:
  ForwardCall(Engine& engine, std::shared_ptr<Session> session, BatchShape shape, ForwardRequest request,
              IsCancelled is_cancelled, ForwardReplied replied);

  // Repeats a remembered request or starts a new one.
  void Run();
  void RunFirst(Session::Admission admission);
  void RunAgain(const ForwardAnswer& answer);

  // What the call does with `snapshot`: the mode, as far as the request does not say otherwise.
  absl::Status Resolve(Session::Admission admission);
  absl::Status FindNamed(const Snapshots& snapshots);
  absl::Status CheckCount() const;
  std::shared_ptr<const NormalizationStatistics> GivenStatistics() const;
  // What the request wants of the engine, `running` being those it normalises with, if any. A blend takes two jobs: the
  // first has the batch's moments, the second normalises.
  void Normalize(const std::shared_ptr<const AffineParameters>& parameters, NormalizedWith with,
                 std::shared_ptr<const NormalizationStatistics> running, bool want_moments,
                 absl::AnyInvocable<void(ForwardCall&, ForwardResult) &&> next);
  void Submit(const std::shared_ptr<const AffineParameters>& parameters,
              std::shared_ptr<const NormalizationStatistics> given, bool want_moments,
              absl::AnyInvocable<void(ForwardCall&, ForwardResult) &&> next);

  // Two things must be there before a commit: the device's result, and the fingerprint, which is computed meanwhile.
  void OnePartDone();
  void Commit();
  // From the session's commit, on whatever thread that ends on.
  void Committed(absl::StatusOr<ForwardAnswer> answer);
  absl::Status CheckFinite(const Moments& moments) const;
  void ReplyWith(const ForwardAnswer& answer, ForwardResult result);
  // What a Backward of this batch needs to know.
  ForwardResult EmptyResult() const;
  SavedForward SavedFor(const ForwardResult& result) const;
  void Fail(absl::Status status);

  Engine& engine_;
  const std::shared_ptr<Session> session_;
  const BatchShape shape_;
  ForwardRequest request_;
  IsCancelled is_cancelled_;
  ForwardReplied replied_;

  // Set by Resolve.
  std::shared_ptr<const SessionState> snapshot_;
  std::shared_ptr<const SessionState> named_;  // what the request calls a snapshot; null: nothing
  NormalizedWith normalized_with_ = NormalizedWith::kBatch;
  Update update_ = Update::kNone;
  // Of the newest Submit.
  std::shared_ptr<const AffineParameters> used_parameters_;
  std::shared_ptr<const NormalizationStatistics> used_given_;
  ForwardAnswer unchanged_;  // what to answer if nothing is updated after all

  Fingerprint fingerprint_;
  absl::StatusOr<ForwardResult> result_ = absl::UnknownError("no result yet");
  std::atomic<int> parts_missing_{2};
};

}  // namespace normserve
