#include "server/session/forward_call.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/error_reason.h"
#include "server/session/batch_moments.h"
#include "server/session/field_error.h"
#include "server/session/session_errors.h"
#include "server/session/session_name.h"

namespace normserve {
namespace {

absl::Status CheckGiven(const Moments& given, int64_t num_features) {
  if (given.count < 1)
    return FieldError("given.count", absl::StrCat("given.count is ", given.count, ": send 1 or more"));
  absl::Status status = CheckVector<double>("given.mean", given.mean, num_features);
  if (status.ok()) status = CheckNonNegative("given.m2", given.m2, num_features);
  if (status.ok()) status = CheckFitsFloat("given.mean", given.mean);
  if (status.ok()) status = CheckFitsFloat("given.m2", given.m2, given.count);
  return status;
}

// A snapshot by name, and how much of it is used.
absl::Status CheckNamed(const ForwardRequest& request) {
  const bool is_blend = request.normalize_with == NormalizedWith::kBlend;
  absl::Status status = CheckSnapshotName(is_blend ? "blend.snapshot" : "snapshot", request.snapshot);
  if (!status.ok() || !is_blend) return status;
  if (!(request.batch_weight >= 0 && request.batch_weight <= 1)) {  // NaN too
    return FieldError("blend.batch_weight", absl::StrCat("blend.batch_weight is ", request.batch_weight,
                                                         ": send 0, the snapshot alone, to 1, the batch alone"));
  }
  for (const auto& [field, is_set] : {std::pair{"return_saved_forward", request.return_saved_forward},
                                      std::pair{"return_normalization", request.return_normalization}}) {
    if (!is_set) continue;
    return FieldError(field, absl::StrCat(field,
                                          " is set, and there is no gradient through a blend: leave it out, or "
                                          "normalise with the batch or a snapshot"));
  }
  return absl::OkStatus();
}

std::shared_ptr<const NormalizationStatistics> BlendOf(const NormalizationStatistics& snapshot, const Moments& batch,
                                                       double batch_weight) {
  auto blend = std::make_shared<NormalizationStatistics>(snapshot);
  if (batch_weight == 0) return blend;  // whatever the batch is
  for (size_t c = 0; c < blend->mean.size(); ++c) {
    blend->mean[c] = (1 - batch_weight) * snapshot.mean[c] + batch_weight * batch.mean[c];
    blend->variance[c] = (1 - batch_weight) * snapshot.variance[c] + batch_weight * batch.BiasedVariance(c);
  }
  return blend;
}

// An empty batch, which no engine sees. It counts for what a saved forward takes besides its input.
class NothingKept : public KeptInput {
 public:
  NothingKept(const BatchShape& shape, ElementType type) : KeptInput(shape, type, 1024 + 16 * shape.num_features) {}
};

}  // namespace

void ForwardCall::Start(SessionRegistry& registry, Engine& engine, ForwardRequest request, IsCancelled is_cancelled,
                        ForwardReplied replied) {
  if (absl::Status status = CheckGuardFields(request.guard); !status.ok()) return std::move(replied)(status);
  auto session = registry.Find(request.name);
  if (!session.ok()) return std::move(replied)(session.status());
  auto shape = CheckTensor("input", request.input);
  if (!shape.ok()) return std::move(replied)(shape.status());
  const int64_t num_features = (*session)->Snapshot()->config.num_features;
  absl::Status status = CheckChannels("input", request.input, request.name, *shape, num_features);
  if (status.ok() && request.normalize_with == NormalizedWith::kGiven) {
    status = CheckGiven(request.given, num_features);
  }
  if (status.ok() &&
      (request.normalize_with == NormalizedWith::kSnapshot || request.normalize_with == NormalizedWith::kBlend)) {
    status = CheckNamed(request);
  }
  if (!status.ok()) return std::move(replied)(status);
  std::shared_ptr<ForwardCall> call(new ForwardCall(engine, *std::move(session), *shape, std::move(request),
                                                    std::move(is_cancelled), std::move(replied)));
  call->Run();
}

ForwardCall::ForwardCall(Engine& engine, std::shared_ptr<Session> session, BatchShape shape, ForwardRequest request,
                         IsCancelled is_cancelled, ForwardReplied replied)
    : engine_(engine),
      session_(std::move(session)),
      shape_(shape),
      request_(std::move(request)),
      is_cancelled_(std::move(is_cancelled)),
      replied_(std::move(replied)) {}

void ForwardCall::Run() {
  Session::Admission admission = session_->Admit(request_.guard.request_id);
  if (admission.may_be_remembered) {
    fingerprint_ = FingerprintOf(request_);
    auto answer = session_->Recall(request_.guard.request_id, fingerprint_);
    if (!answer.ok()) return Fail(answer.status());
    if (answer->has_value()) return RunAgain(**answer);
  }
  RunFirst(std::move(admission));
}

void ForwardCall::RunFirst(Session::Admission admission) {
  if (absl::Status status = Resolve(std::move(admission)); !status.ok()) return Fail(std::move(status));
  const ForwardAnswer unchanged{.generation = snapshot_->generation,
                                .snapshot_generation = snapshot_->generation,
                                .num_batches_tracked = snapshot_->num_batches_tracked,
                                .normalized_with = normalized_with_};
  std::shared_ptr<const NormalizationStatistics> running;
  if (normalized_with_ == NormalizedWith::kRunning) running = snapshot_->running;
  if (named_ != nullptr) running = named_->running;
  if (shape_.batch_size == 0) {
    used_parameters_ = snapshot_->parameters;
    used_given_ = normalized_with_ == NormalizedWith::kGiven ? GivenStatistics() : std::move(running);
    return ReplyWith(unchanged, EmptyResult());
  }
  if (update_ == Update::kNone) {
    return Normalize(
        snapshot_->parameters, normalized_with_, std::move(running), request_.return_batch_moments,
        [unchanged](ForwardCall& call, ForwardResult result) { call.ReplyWith(unchanged, std::move(result)); });
  }
  unchanged_ = unchanged;
  Normalize(snapshot_->parameters, normalized_with_, std::move(running), /*want_moments=*/true,
            [](ForwardCall& call, ForwardResult result) {
              call.result_ = std::move(result);
              call.OnePartDone();
            });
  // While the device works.
  if (!request_.guard.request_id.empty()) fingerprint_ = FingerprintOf(request_);
  OnePartDone();
}

void ForwardCall::RunAgain(const ForwardAnswer& answer) {
  if (answer.parameters == nullptr) {
    return Fail(AnswerDropped(session_->name(), request_.guard.request_id, answer.generation));
  }
  snapshot_ = session_->Snapshot();  // for epsilon, which is constant
  Normalize(answer.parameters, answer.normalized_with, answer.running, request_.return_batch_moments,
            [answer](ForwardCall& call, ForwardResult result) { call.ReplyWith(answer, std::move(result)); });
}

absl::Status ForwardCall::FindNamed(const Snapshots& snapshots) {
  const auto found = snapshots.find(request_.snapshot);
  if (found == snapshots.end()) return SnapshotNotFound(session_->name(), request_.snapshot);
  if (!found->second.lost.ok()) return found->second.lost;
  named_ = found->second.state;
  return absl::OkStatus();
}

absl::Status ForwardCall::Resolve(Session::Admission admission) {
  snapshot_ = std::move(admission.snapshot);
  const Mode mode = request_.mode.value_or(snapshot_->mode);
  const bool tracked = snapshot_->config.track_running_stats;
  normalized_with_ = request_.normalize_with.value_or(mode == Mode::kTrain || !tracked ? NormalizedWith::kBatch
                                                                                       : NormalizedWith::kRunning);
  const Update by_mode = mode == Mode::kTrain    ? (tracked ? Update::kRunning : Update::kNone)
                         : mode == Mode::kShadow ? Update::kShadow
                                                 : Update::kNone;
  update_ = request_.update.value_or(by_mode);
  if (!tracked && normalized_with_ == NormalizedWith::kRunning) return NotTracked("running", session_->name());
  if (!tracked && update_ == Update::kRunning) return NotTracked("update", session_->name());
  if (normalized_with_ == NormalizedWith::kSnapshot || normalized_with_ == NormalizedWith::kBlend) {
    if (!tracked)
      return NotTracked(normalized_with_ == NormalizedWith::kBlend ? "blend" : "snapshot", session_->name());
    if (absl::Status status = FindNamed(*admission.named); !status.ok()) return status;
  }
  if (absl::Status status = CheckExpectations(request_.guard, session_->name(), session_->uid(), snapshot_->generation);
      !status.ok()) {
    return status;
  }
  return shape_.batch_size == 0 ? absl::OkStatus() : CheckCount();
}

absl::Status ForwardCall::CheckCount() const {
  const bool uses_batch = update_ == Update::kRunning || normalized_with_ == NormalizedWith::kBatch ||
                          normalized_with_ == NormalizedWith::kBlend;
  if (!uses_batch || shape_.ValuesPerChannel() > 1) return absl::OkStatus();
  return MakeError(absl::StatusCode::kInvalidArgument, ErrorReason::kBatchTooSmall,
                   absl::StrCat("input.shape: Expected more than 1 value per channel when training, got input size "
                                "torch.Size(",
                                DimensionsText(request_.input.dimensions), "): send a larger batch or use mode EVAL"),
                   {{"field", "input.shape"}});
}

std::shared_ptr<const NormalizationStatistics> ForwardCall::GivenStatistics() const {
  const Moments& given = request_.given;
  auto statistics = std::make_shared<NormalizationStatistics>();
  statistics->mean = given.mean;
  for (size_t c = 0; c < given.m2.size(); ++c) statistics->variance.push_back(given.BiasedVariance(c));
  return statistics;
}

void ForwardCall::Normalize(const std::shared_ptr<const AffineParameters>& parameters, NormalizedWith with,
                            std::shared_ptr<const NormalizationStatistics> running, bool want_moments,
                            absl::AnyInvocable<void(ForwardCall&, ForwardResult) &&> next) {
  if (with == NormalizedWith::kGiven) running = GivenStatistics();
  if (with != NormalizedWith::kBlend) return Submit(parameters, std::move(running), want_moments, std::move(next));
  auto blend = [parameters, running, next = std::move(next)](ForwardCall& call, ForwardResult first) mutable {
    auto between = BlendOf(*running, *first.moments, call.request_.batch_weight);
    first.output = {};  // only its moments are needed
    call.Submit(
        parameters, std::move(between), /*want_moments=*/false,
        [moments = std::move(first.moments), next = std::move(next)](ForwardCall& self, ForwardResult second) mutable {
          second.moments = std::move(moments);
          std::move(next)(self, std::move(second));
        });
  };
  Submit(parameters, std::move(running), /*want_moments=*/true, std::move(blend));
}

void ForwardCall::Submit(const std::shared_ptr<const AffineParameters>& parameters,
                         std::shared_ptr<const NormalizationStatistics> given, bool want_moments,
                         absl::AnyInvocable<void(ForwardCall&, ForwardResult) &&> next) {
  used_parameters_ = parameters;
  used_given_ = given;
  ForwardJob job{.input = request_.input.ToInput(shape_),
                 .parameters = parameters,
                 .epsilon = snapshot_->config.epsilon,
                 .given = std::move(given),
                 .want_moments = want_moments,
                 .keep_input = request_.return_saved_forward};
  engine_.Forward(std::move(job),
                  [self = shared_from_this(), next = std::move(next)](absl::StatusOr<ForwardResult> result) mutable {
                    if (!result.ok()) return self->Fail(result.status());
                    if (result->moments.has_value()) result->moments->num_samples = self->shape_.batch_size;
                    std::move(next)(*self, *std::move(result));
                  });
}

void ForwardCall::OnePartDone() {
  if (parts_missing_.fetch_sub(1, std::memory_order_acq_rel) == 1) Commit();
}

void ForwardCall::Commit() {
  const Moments& moments = *result_->moments;
  if (absl::Status status = CheckFinite(moments); !status.ok()) {
    if (snapshot_->config.non_finite_policy == NonFinitePolicy::kReject) return Fail(std::move(status));
    return ReplyWith(unchanged_, *std::move(result_));
  }
  if (is_cancelled_()) return Fail(absl::CancelledError("cancelled before anything was changed"));
  session_->CommitForward(
      request_.guard, fingerprint_,
      ForwardCommit{.snapshot = snapshot_,
                    .moments = moments,
                    .normalized_with = normalized_with_,
                    .update = update_,
                    .named = named_},
      [self = shared_from_this()](absl::StatusOr<ForwardAnswer> answer) { self->Committed(std::move(answer)); });
}

void ForwardCall::Committed(absl::StatusOr<ForwardAnswer> answer) {
  if (!answer.ok()) return Fail(answer.status());
  // A copy of this request may have been first, and computed with another state.
  const bool same_inputs = answer->parameters == snapshot_->parameters &&
                           (normalized_with_ != NormalizedWith::kRunning || answer->running == snapshot_->running) &&
                           (named_ == nullptr || answer->running == named_->running) &&
                           answer->normalized_with == normalized_with_;
  if (!same_inputs) return RunAgain(*answer);
  ReplyWith(*answer, *std::move(result_));
}

absl::Status ForwardCall::CheckFinite(const Moments& moments) const {
  return CheckFiniteMoments("input", request_.input, shape_, moments,
                            "nothing was folded in: send finite values, or use update NONE");
}

void ForwardCall::ReplyWith(const ForwardAnswer& answer, ForwardResult result) {
  ForwardReply reply{.uid = session_->uid(),
                     .generation = answer.generation,
                     .snapshot_generation = answer.snapshot_generation,
                     .num_batches_tracked = answer.num_batches_tracked,
                     .normalized_with = answer.normalized_with,
                     .update = answer.update,
                     .durability = snapshot_->config.durability,
                     .return_normalization = request_.return_normalization,
                     .type = request_.input.type,
                     .layout = request_.input.layout,
                     .dimensions = request_.input.dimensions,
                     .output = std::move(result.output)};
  if (request_.return_saved_forward || request_.return_normalization) reply.saved = SavedFor(result);
  if (request_.return_batch_moments) reply.batch_moments = std::move(result.moments);
  // The batch is not needed any more; the reply may take long to leave.
  request_.input.pieces.clear();
  request_.input.owner.reset();
  std::move(replied_)(std::move(reply));
}

ForwardResult ForwardCall::EmptyResult() const {
  ForwardResult result{.moments = Moments{}};
  if (request_.return_saved_forward) result.kept_input = std::make_shared<NothingKept>(shape_, request_.input.type);
  return result;
}

SavedForward ForwardCall::SavedFor(const ForwardResult& result) const {
  SavedForward saved{.session_uid = session_->uid(),
                     .input = result.kept_input,
                     .type = request_.input.type,
                     .layout = request_.input.layout,
                     .dimensions = request_.input.dimensions,
                     .normalization = used_given_,
                     .parameters = used_parameters_,
                     .from_batch = used_given_ == nullptr};
  if (saved.from_batch) {
    NormalizationStatistics used{.mean = result.moments->mean};
    for (size_t c = 0; c < used.mean.size(); ++c) used.variance.push_back(result.moments->BiasedVariance(c));
    if (shape_.batch_size == 0) used.mean = used.variance = std::vector<double>(shape_.num_features, 0.0);
    saved.normalization = std::make_shared<const NormalizationStatistics>(std::move(used));
  }
  return saved;
}

void ForwardCall::Fail(absl::Status status) { std::move(replied_)(std::move(status)); }

}  // namespace normserve
