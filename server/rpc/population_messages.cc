#include "server/rpc/population_messages.h"

#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/rpc/moments_message.h"
#include "server/rpc/session_messages.h"
#include "server/rpc/stats_messages.h"
#include "server/rpc/tensor_message.h"
#include "server/session/field_error.h"

namespace normserve {

absl::StatusOr<ObserveRequest> ReadObserveRequest(const v1::ObserveRequest& message) {
  auto given = ReadGiven("", message);
  if (!given.ok()) return given.status();
  return ObserveRequest{.name = message.name(),
                        .guard = ReadGuard(message),
                        .given = *std::move(given),
                        .part_id = message.part_id(),
                        .dry_run = message.dry_run(),
                        .reset = message.reset()};
}

absl::StatusOr<ReceivedTensor> ReadHeldTensor(absl::string_view field, const v1::Tensor& message) {
  const std::string& data = message.data();
  return ReadTensor(field, message, {absl::MakeConstSpan(reinterpret_cast<const std::byte*>(data.data()), data.size())},
                    /*owner=*/nullptr);
}

absl::StatusOr<GatherRequest> ReadMergeRequest(const v1::MergeMomentsRequest& message) {
  GatherRequest request{.kind = CollectionKind::kMerge,
                        .name = message.name(),
                        .guard = ReadGuard(message),
                        .id = message.merge_id(),
                        .commit = message.commit(),
                        .drop = message.drop()};
  switch (message.policy()) {
    case v1::MERGE_POLICY_UNSPECIFIED:
    case v1::MERGE_POLICY_EXACT:
      break;
    case v1::MERGE_POLICY_WEIGHTED:
      request.policy = MergePolicy::kWeighted;
      break;
    case v1::MERGE_POLICY_KEEP_LOCAL:
      request.policy = MergePolicy::kKeepLocal;
      break;
    default:
      return FieldError("policy", absl::StrCat("policy is ", message.policy(),
                                               ": send MERGE_POLICY_EXACT (1), MERGE_POLICY_WEIGHTED (2) or "
                                               "MERGE_POLICY_KEEP_LOCAL (3)"));
  }
  for (int i = 0; i < message.parts_size(); ++i) {
    const v1::MomentsPart& part = message.parts(i);
    const std::string prefix = absl::StrCat("parts[", i, "].");
    if (part.has_moments() && part.has_layers()) {
      return FieldError(prefix + "moments", absl::StrCat(prefix, "moments and ", prefix, "layers are set: send one"));
    }
    auto given = ReadGiven(prefix, part);
    if (!given.ok()) return given.status();
    request.parts.push_back({.id = part.id(), .given = *std::move(given)});
  }
  return request;
}

absl::StatusOr<GatherRequest> ReadCalibrateRequest(const v1::CalibrateRequest& message) {
  GatherRequest request{.kind = CollectionKind::kCalibration,
                        .name = message.name(),
                        .guard = ReadGuard(message),
                        .id = message.calibration_id(),
                        .commit = message.commit(),
                        .drop = message.drop(),
                        .to_snapshot = message.to_snapshot()};
  switch (message.estimator()) {
    case v1::ESTIMATOR_UNSPECIFIED:
    case v1::ESTIMATOR_POOLED:
      break;
    case v1::ESTIMATOR_ALGORITHM_2:
      request.method = CalibrationMethod::kAlgorithm2;
      break;
    default:
      return FieldError("estimator", absl::StrCat("estimator is ", message.estimator(),
                                                  ": send ESTIMATOR_POOLED (1) or ESTIMATOR_ALGORITHM_2 (2)"));
  }
  const bool has_data = message.data_case() != v1::CalibrateRequest::DATA_NOT_SET;
  if (!has_data && !message.part_id().empty()) {
    return FieldError("part_id", absl::StrCat("part_id is \"", absl::CHexEscape(message.part_id().substr(0, 64)),
                                              "\" and there is no data: send moments, layers or batch"));
  }
  if (!has_data) return request;
  auto given = ReadGiven("", message);
  if (!given.ok()) return given.status();
  request.parts.push_back({.id = message.part_id(), .given = *std::move(given)});
  return request;
}

void WriteMerged(const GatheredSession& gathered, v1::MergedSession& message) {
  message.set_name(gathered.answer.session);
  message.set_uid(gathered.answer.uid);
  message.set_generation(gathered.answer.generation);
  message.set_num_parts(gathered.answer.num_parts);
  message.set_committed(gathered.answer.is_committed);
  if (gathered.result == nullptr) return;
  const CollectionResult& result = *gathered.result;
  const Channels all{.count = result.variance_within.size()};
  if (result.merged.count > 0) WriteMoments(result.merged, all, *message.mutable_merged());
  WriteVector(result.variance_within, all, *message.mutable_variance_within());
  WriteVector(result.variance_between, all, *message.mutable_variance_between());
}

void WriteCalibrated(const GatheredSession& gathered, v1::CalibratedSession& message) {
  message.set_name(gathered.answer.session);
  message.set_uid(gathered.answer.uid);
  message.set_generation(gathered.answer.generation);
  message.set_num_batches(gathered.answer.num_parts);
  message.set_committed(gathered.answer.is_committed);
  if (gathered.result == nullptr) return;
  const auto write = [](const NormalizationStatistics& statistics, int64_t num_batches, v1::RunningStatistics& to) {
    const Channels all{.count = statistics.mean.size()};
    WriteVector(statistics.mean, all, *to.mutable_running_mean());
    WriteVector(statistics.variance, all, *to.mutable_running_var());
    to.set_num_batches_tracked(num_batches);
  };
  write(gathered.result->before, gathered.result->batches_before, *message.mutable_before());
  write(gathered.result->after, gathered.result->batches_after, *message.mutable_after());
}

void WriteObserved(const ObservedSession& observed, v1::ObservedSession& message) {
  message.set_name(observed.answer.session);
  message.set_uid(observed.answer.uid);
  message.set_generation(observed.answer.generation);
  message.mutable_moments()->set_count(observed.answer.count);
  if (observed.moments != nullptr) {
    WriteMoments(*observed.moments, {.count = observed.moments->mean.size()}, *message.mutable_moments());
  }
}

absl::Status WriteMomentsReply(const std::vector<std::shared_ptr<Session>>& sessions,
                               const std::vector<SessionContent>& contents, const v1::GetMomentsRequest& request,
                               int64_t max_bytes, v1::GetMomentsReply& reply) {
  std::shared_ptr<const Moments> Observations::* source = nullptr;
  switch (request.source()) {
    case v1::MOMENTS_SOURCE_UNSPECIFIED:
    case v1::MOMENTS_SOURCE_OBSERVED:
      source = &Observations::observed;
      break;
    case v1::MOMENTS_SOURCE_LAST_BATCH:
      source = &Observations::last_batch;
      break;
    case v1::MOMENTS_SOURCE_SHADOW:
      source = &Observations::shadow;
      break;
    case v1::MOMENTS_SOURCE_OBSERVED_BEFORE:
      source = &Observations::observed_before;
      break;
    default:
      return FieldError("source", absl::StrCat("source is ", request.source(),
                                               ": send MOMENTS_SOURCE_OBSERVED (1), MOMENTS_SOURCE_LAST_BATCH (2), "
                                               "MOMENTS_SOURCE_SHADOW (3) or MOMENTS_SOURCE_OBSERVED_BEFORE (4)"));
  }
  if (request.has_channel_range() && absl::EndsWith(request.name(), "/")) {
    return FieldError("channel_range", absl::StrCat("channel_range goes with a single session, and \"", request.name(),
                                                    "\" names a model: leave it out, or name one of its sessions"));
  }
  absl::Status status = CheckReplySize(request.name(), contents, 2 * sizeof(double), max_bytes);
  if (!status.ok()) return status;
  for (size_t i = 0; i < sessions.size(); ++i) {
    const auto channels =
        ReadChannelRange(request.channel_range(), sessions[i]->name(), contents[i].state->config.num_features);
    if (!channels.ok()) return channels.status();
    v1::SessionMoments& message = *reply.add_sessions();
    message.set_name(sessions[i]->name());
    message.set_uid(sessions[i]->uid());
    message.set_generation(contents[i].state->generation);
    message.set_first_channel(static_cast<int64_t>(channels->first));
    v1::Moments& moments = *message.mutable_moments();
    const auto& found = contents[i].observations.*source;
    if (found != nullptr) WriteMoments(*found, *channels, moments);
  }
  return absl::OkStatus();
}

}  // namespace normserve
