#include "normserve/population_message.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "normserve/messages.h"

namespace normserve::client {
namespace {

template <typename Message>
void WriteMomentsOf(const Data& data, Message& message) {
  if (data.moments.has_value()) WriteMoments(*data.moments, *message.mutable_moments());
  for (const auto& [layer, moments] : data.layers) {
    v1::LayerMoments& added = *message.mutable_layers()->add_layers();
    added.set_layer(layer);
    WriteMoments(moments, *added.mutable_moments());
  }
}

template <typename Message>
void WriteData(const Data& data, Message& message) {
  WriteMomentsOf(data, message);
  if (!data.batch.has_value()) return;
  WriteTensor(*data.batch, *message.mutable_batch());
}

template <typename Message>
void WriteGuards(const ChangeGuards& guards, Message& message) {
  message.set_request_id(guards.request_id);
  if (guards.expected_generation.has_value()) message.set_expected_generation(*guards.expected_generation);
  message.set_expected_uid(guards.expected_uid);
}

Observed Read(const v1::ObservedSession& message) {
  Observed observed{.name = message.name(),
                    .uid = message.uid(),
                    .generation = message.generation(),
                    .count = message.moments().count()};
  if (message.moments().mean_size() > 0) observed.moments = FromMessage(message.moments());
  return observed;
}

SessionMoments Read(const v1::SessionMoments& message) {
  return {.name = message.name(),
          .uid = message.uid(),
          .generation = message.generation(),
          .moments = FromMessage(message.moments()),
          .first_channel = message.first_channel()};
}

Merged Read(const v1::MergedSession& message) {
  Merged merged{.name = message.name(),
                .uid = message.uid(),
                .generation = message.generation(),
                .num_parts = message.num_parts(),
                .committed = message.committed(),
                .variance_within = {message.variance_within().begin(), message.variance_within().end()},
                .variance_between = {message.variance_between().begin(), message.variance_between().end()}};
  if (message.has_merged()) merged.merged = FromMessage(message.merged());
  return merged;
}

Calibrated Read(const v1::CalibratedSession& message) {
  return {.name = message.name(),
          .uid = message.uid(),
          .generation = message.generation(),
          .num_batches = message.num_batches(),
          .committed = message.committed(),
          .before = FromMessage(message.before()),
          .after = FromMessage(message.after())};
}

template <typename Result, typename Messages>
absl::StatusOr<std::vector<Result>> ReadAll(const char* method, const Messages& messages) {
  if (messages.empty()) return absl::InternalError(absl::StrCat("the server's reply to ", method, " names nothing"));
  std::vector<Result> results;
  for (const auto& message : messages) results.push_back(Read(message));
  return results;
}

}  // namespace

void WriteTensor(const TensorView& tensor, v1::Tensor& message) {
  static_assert(sizeof(float) == 4);
  message.set_data_type(v1::DATA_TYPE_FLOAT32);
  message.mutable_shape()->Add(tensor.shape.begin(), tensor.shape.end());
  message.set_layout(tensor.layout == Layout::kChannelsLast ? v1::LAYOUT_CHANNELS_LAST : v1::LAYOUT_CHANNELS_FIRST);
  message.set_data(tensor.values.data(), tensor.values.size() * sizeof(float));
}

v1::ObserveRequest ToMessage(const ObserveRequest& request) {
  v1::ObserveRequest message;
  message.set_name(request.name);
  WriteGuards(request.guards, message);
  WriteData(request.data, message);
  message.set_part_id(request.part_id);
  message.set_dry_run(request.dry_run);
  message.set_reset(request.reset);
  return message;
}

v1::GetMomentsRequest ToMessage(const GetMomentsRequest& request) {
  v1::GetMomentsRequest message;
  message.set_name(request.name);
  if (request.first_channel != 0 || request.num_channels != 0) {
    message.mutable_channel_range()->set_first(request.first_channel);
    if (request.num_channels != 0) message.mutable_channel_range()->set_count(request.num_channels);
  }
  message.set_source(static_cast<v1::MomentsSource>(request.source));
  return message;
}

v1::MergeMomentsRequest ToMessage(const MergeMomentsRequest& request) {
  v1::MergeMomentsRequest message;
  message.set_name(request.name);
  WriteGuards(request.guards, message);
  message.set_merge_id(request.merge_id);
  for (const MomentsPart& part : request.parts) {
    v1::MomentsPart& added = *message.add_parts();
    added.set_id(part.id);
    WriteMomentsOf(part.data, added);
  }
  message.set_policy(static_cast<v1::MergePolicy>(request.policy));
  message.set_commit(request.commit);
  message.set_drop(request.drop);
  return message;
}

v1::CalibrateRequest ToMessage(const CalibrateRequest& request) {
  v1::CalibrateRequest message;
  message.set_name(request.name);
  WriteGuards(request.guards, message);
  message.set_calibration_id(request.calibration_id);
  WriteData(request.data, message);
  message.set_part_id(request.part_id);
  message.set_estimator(static_cast<v1::Estimator>(request.estimator));
  message.set_commit(request.commit);
  message.set_to_snapshot(request.to_snapshot);
  message.set_drop(request.drop);
  return message;
}

absl::StatusOr<std::vector<Observed>> FromMessage(const v1::ObserveReply& message) {
  return ReadAll<Observed>("Observe", message.sessions());
}

absl::StatusOr<std::vector<SessionMoments>> FromMessage(const v1::GetMomentsReply& message) {
  return ReadAll<SessionMoments>("GetMoments", message.sessions());
}

absl::StatusOr<std::vector<Merged>> FromMessage(const v1::MergeMomentsReply& message) {
  return ReadAll<Merged>("MergeMoments", message.sessions());
}

absl::StatusOr<std::vector<Calibrated>> FromMessage(const v1::CalibrateReply& message) {
  return ReadAll<Calibrated>("Calibrate", message.sessions());
}

}  // namespace normserve::client
