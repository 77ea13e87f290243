#include "normserve/messages.h"

#include <utility>
#include <variant>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "normserve/population_message.h"
#include "normserve/v1/error_details.pb.h"

namespace normserve::client {
namespace {

v1::Mode ToMessage(Mode mode) { return static_cast<v1::Mode>(mode); }

// A level that this library has no name for, and none, are nothing.
std::optional<Durability> FromMessage(v1::Durability durability) {
  if (durability == v1::DURABILITY_UNSPECIFIED || !v1::Durability_IsValid(durability)) return std::nullopt;
  return static_cast<Durability>(durability);
}

template <typename T, typename Repeated>
std::vector<T> ToVector(const Repeated& repeated) {
  return std::vector<T>(repeated.begin(), repeated.end());
}

template <typename T, typename Repeated>
void CopyTo(const std::vector<T>& values, Repeated* repeated) {
  repeated->Assign(values.begin(), values.end());
}

void CopyTo(const Parameters& parameters, v1::Parameters* message) {
  CopyTo(parameters.weight, message->mutable_weight());
  CopyTo(parameters.bias, message->mutable_bias());
}

template <typename Message>
void CopyTo(const ChangeGuards& guards, Message& message) {
  message.set_request_id(guards.request_id);
  message.set_expected_uid(guards.expected_uid);
  if (guards.expected_generation.has_value()) message.set_expected_generation(*guards.expected_generation);
}

}  // namespace

absl::Time ToTime(const google::protobuf::Timestamp& time) {
  return absl::FromUnixSeconds(time.seconds()) + absl::Nanoseconds(time.nanos());
}

google::protobuf::Timestamp ToTimestamp(absl::Time time) {
  google::protobuf::Timestamp message;
  message.set_seconds(absl::ToUnixSeconds(time));
  message.set_nanos(static_cast<int32_t>((time - absl::FromUnixSeconds(message.seconds())) / absl::Nanoseconds(1)));
  return message;
}

void CopyTo(const SessionConfig& config, v1::SessionConfig& message) {
  message.set_num_features(config.num_features);
  if (config.epsilon.has_value()) message.set_epsilon(*config.epsilon);
  if (config.averaging == Averaging::kCumulative) {
    message.mutable_cumulative();
  } else if (config.averaging == Averaging::kZeroDebiased) {
    message.mutable_zero_debiased();
    if (config.momentum.has_value()) message.mutable_zero_debiased()->set_momentum(*config.momentum);
  } else if (config.momentum.has_value()) {
    message.set_momentum(*config.momentum);
  }
  if (config.affine.has_value()) message.set_affine(*config.affine);
  if (config.track_running_stats.has_value()) message.set_track_running_stats(*config.track_running_stats);
  message.set_running_variance(static_cast<v1::RunningVariance>(config.running_variance));
  message.set_non_finite_policy(static_cast<v1::NonFinitePolicy>(config.non_finite_policy));
  if (config.durability.has_value()) message.set_durability(static_cast<v1::Durability>(*config.durability));
  for (const auto& [key, value] : config.labels) (*message.mutable_labels())[key] = value;
  message.set_convention(static_cast<v1::Convention>(config.convention));
}

namespace {

SessionConfig FromMessage(const v1::SessionConfig& message) {
  SessionConfig config{.num_features = message.num_features()};
  if (message.has_epsilon()) config.epsilon = message.epsilon();
  if (message.has_momentum()) config.momentum = message.momentum();
  if (message.has_cumulative()) config.averaging = Averaging::kCumulative;
  if (message.has_zero_debiased()) {
    config.averaging = Averaging::kZeroDebiased;
    if (message.zero_debiased().has_momentum()) config.momentum = message.zero_debiased().momentum();
  }
  if (message.has_affine()) config.affine = message.affine();
  if (message.has_track_running_stats()) config.track_running_stats = message.track_running_stats();
  if (v1::RunningVariance_IsValid(message.running_variance())) {
    config.running_variance = static_cast<RunningVariance>(message.running_variance());
  }
  if (v1::NonFinitePolicy_IsValid(message.non_finite_policy())) {
    config.non_finite_policy = static_cast<NonFinitePolicy>(message.non_finite_policy());
  }
  config.durability = FromMessage(message.durability());
  for (const auto& [key, value] : message.labels()) config.labels[key] = value;
  if (v1::Convention_IsValid(message.convention())) config.convention = static_cast<Convention>(message.convention());
  return config;
}

Normalization FromMessage(const v1::Normalization& message) {
  return {.mean = ToVector<double>(message.mean()),
          .var = ToVector<double>(message.var()),
          .weight = ToVector<float>(message.weight()),
          .from_batch = message.from_batch()};
}

Snapshot FromMessage(const v1::Snapshot& message) {
  return {.name = message.name(),
          .snapshot = message.snapshot(),
          .uid = message.uid(),
          .generation = message.generation(),
          .create_time = ToTime(message.create_time()),
          .size_bytes = message.size_bytes(),
          .num_batches_tracked = message.num_batches_tracked()};
}

Device FromMessage(const v1::Device& message) {
  return {.name = message.name(),
          .uuid = message.uuid(),
          .type = message.type(),
          .driver = message.driver(),
          .api_version = message.api_version(),
          .in_use = message.in_use(),
          .reason = message.reason()};
}

}  // namespace

Mode FromMessage(v1::Mode mode) { return v1::Mode_IsValid(mode) ? static_cast<Mode>(mode) : Mode::kUnspecified; }

void WriteMoments(const Moments& moments, v1::Moments& message) {
  message.set_count(moments.count);
  message.set_num_samples(moments.num_samples);
  message.mutable_mean()->Add(moments.mean.begin(), moments.mean.end());
  message.mutable_m2()->Add(moments.m2.begin(), moments.m2.end());
}

Moments FromMessage(const v1::Moments& message) {
  return {.count = message.count(),
          .mean = ToVector<double>(message.mean()),
          .m2 = ToVector<double>(message.m2()),
          .num_samples = message.num_samples()};
}

RunningStatistics FromMessage(const v1::RunningStatistics& message) {
  return {.running_mean = ToVector<double>(message.running_mean()),
          .running_var = ToVector<double>(message.running_var()),
          .num_batches_tracked = message.num_batches_tracked()};
}

std::string WithoutPrefix(const std::string& name, absl::string_view prefix) {
  return name.empty() ? "UNKNOWN" : std::string(absl::StripPrefix(name, prefix));
}

absl::Status FromGrpcStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  absl::Status result(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  v1::StatusDetails details;
  if (details.ParseFromString(status.error_details())) {
    for (const google::protobuf::Any& detail : details.details()) {
      result.SetPayload(detail.type_url(), absl::Cord(detail.value()));
    }
  }
  return result;
}

v1::CreateSessionRequest ToMessage(const CreateSessionRequest& request) {
  v1::CreateSessionRequest message;
  message.set_name(request.name);
  message.set_request_id(request.request_id);
  v1::SessionConfig& config = *message.mutable_config();
  CopyTo(request.config, config);
  message.set_mode(ToMessage(request.mode));
  CopyTo(request.parameters, message.mutable_parameters());
  if (request.statistics.has_value()) {
    v1::RunningStatistics& statistics = *message.mutable_statistics();
    CopyTo(request.statistics->running_mean, statistics.mutable_running_mean());
    CopyTo(request.statistics->running_var, statistics.mutable_running_var());
    statistics.set_num_batches_tracked(request.statistics->num_batches_tracked);
  }
  return message;
}

v1::ListSessionsRequest ToMessage(const ListSessionsRequest& request) {
  v1::ListSessionsRequest message;
  message.set_prefix(request.prefix);
  if (request.page_size != 0) message.set_page_size(request.page_size);
  message.set_page_token(request.page_token);
  for (const auto& [key, value] : request.label_filter) (*message.mutable_label_filter())[key] = value;
  return message;
}

v1::CloneSessionRequest ToMessage(const CloneSessionRequest& request) {
  v1::CloneSessionRequest message;
  message.set_name(request.name);
  message.set_clone_name(request.clone_name);
  CopyTo(request.guards, message);
  return message;
}

v1::SetModeRequest ToMessage(const SetModeRequest& request) {
  v1::SetModeRequest message;
  message.set_name(request.name);
  message.set_mode(ToMessage(request.mode));
  CopyTo(request.guards, message);
  return message;
}

v1::SetParametersRequest ToMessage(const SetParametersRequest& request) {
  v1::SetParametersRequest message;
  message.set_name(request.name);
  CopyTo(request.parameters, message.mutable_parameters());
  CopyTo(request.guards, message);
  return message;
}

v1::DeleteSessionRequest ToMessage(const DeleteSessionRequest& request) {
  v1::DeleteSessionRequest message;
  message.set_name(request.name);
  CopyTo(request.guards, message);
  return message;
}

v1::SnapshotStateRequest ToMessage(const SnapshotStateRequest& request) {
  v1::SnapshotStateRequest message;
  message.set_name(request.name);
  message.set_snapshot(request.snapshot);
  CopyTo(request.guards, message);
  return message;
}

v1::RestoreStateRequest ToMessage(const RestoreStateRequest& request) {
  v1::RestoreStateRequest message;
  message.set_name(request.name);
  message.set_snapshot(request.snapshot);
  CopyTo(request.guards, message);
  return message;
}

v1::ListSnapshotsRequest ToMessage(const ListSnapshotsRequest& request) {
  v1::ListSnapshotsRequest message;
  message.set_name(request.name);
  if (request.page_size != 0) message.set_page_size(request.page_size);
  message.set_page_token(request.page_token);
  return message;
}

v1::DeleteSnapshotRequest ToMessage(const DeleteSnapshotRequest& request) {
  v1::DeleteSnapshotRequest message;
  message.set_name(request.name);
  message.set_snapshot(request.snapshot);
  CopyTo(request.guards, message);
  return message;
}

v1::DiagnoseRequest ToMessage(const DiagnoseRequest& request) {
  v1::DiagnoseRequest message;
  message.set_name(request.name);
  if (request.moments.has_value()) WriteMoments(*request.moments, *message.mutable_moments());
  for (const auto& [layer, moments] : request.layers) {
    v1::LayerMoments* added = message.mutable_layers()->add_layers();
    added->set_layer(layer);
    WriteMoments(moments, *added->mutable_moments());
  }
  if (request.observed) message.mutable_observed();
  if (request.batch.has_value()) WriteTensor(*request.batch, *message.mutable_batch());
  message.set_samples_per_batch(request.samples_per_batch);
  message.set_return_channels(request.return_channels);
  return message;
}

v1::ForwardRequest ToMessage(const ForwardRequest& request) {
  v1::ForwardRequest message;
  message.set_name(request.name);
  CopyTo(request.guards, message);
  message.set_mode(ToMessage(request.mode));
  if (std::holds_alternative<UseBatch>(request.normalize_with)) message.mutable_batch();
  if (std::holds_alternative<UseRunning>(request.normalize_with)) message.mutable_running();
  if (const auto* snapshot = std::get_if<UseSnapshot>(&request.normalize_with)) message.set_snapshot(snapshot->name);
  if (const auto* blend = std::get_if<UseBlend>(&request.normalize_with)) {
    message.mutable_blend()->set_snapshot(blend->snapshot);
    if (blend->batch_weight.has_value()) message.mutable_blend()->set_batch_weight(*blend->batch_weight);
  }
  if (const auto* given = std::get_if<Moments>(&request.normalize_with)) {
    message.mutable_given()->set_count(given->count);
    CopyTo(given->mean, message.mutable_given()->mutable_mean());
    CopyTo(given->m2, message.mutable_given()->mutable_m2());
  }
  message.set_update(static_cast<v1::Update>(request.update));
  message.set_return_batch_moments(request.return_batch_moments);
  message.set_return_saved_forward(request.save_for_backward);
  message.set_return_normalization(request.save_for_backward);
  return message;
}

v1::BackwardRequest ToMessage(const BackwardRequest& request) {
  v1::BackwardRequest message;
  message.set_name(request.name);
  if (request.expected_generation.has_value()) message.set_expected_generation(*request.expected_generation);
  message.set_expected_uid(request.expected_uid);
  message.set_stop_at_sums(request.stop_at_sums);
  message.set_release_saved_forward(request.release);
  if (request.start_from_sums.has_value()) {
    v1::GradientSums& sums = *message.mutable_start_from_sums();
    sums.set_count(request.start_from_sums->count);
    CopyTo(request.start_from_sums->grad_output, sums.mutable_grad_output());
    CopyTo(request.start_from_sums->grad_output_centered_input, sums.mutable_grad_output_centered_input());
    CopyTo(request.start_from_sums->centered_input, sums.mutable_centered_input());
    CopyTo(request.start_from_sums->centered_input_squared, sums.mutable_centered_input_squared());
  }
  if (!request.token.empty()) {
    message.set_saved_forward(request.token);
    return message;
  }
  v1::Normalization& normalization = *message.mutable_resent()->mutable_normalization();
  CopyTo(request.normalization.mean, normalization.mutable_mean());
  CopyTo(request.normalization.var, normalization.mutable_var());
  CopyTo(request.normalization.weight, normalization.mutable_weight());
  normalization.set_from_batch(request.normalization.from_batch);
  return message;
}

BackwardResult FromMessage(const v1::BackwardReply& message) {
  return {.grad_weight = ToVector<float>(message.grad_weight()),
          .grad_bias = ToVector<float>(message.grad_bias()),
          .sums = {.count = message.sums().count(),
                   .grad_output = ToVector<double>(message.sums().grad_output()),
                   .grad_output_centered_input = ToVector<double>(message.sums().grad_output_centered_input()),
                   .centered_input = ToVector<double>(message.sums().centered_input()),
                   .centered_input_squared = ToVector<double>(message.sums().centered_input_squared())}};
}

Session FromMessage(const v1::Session& message) {
  Session session{.name = message.name(),
                  .uid = message.uid(),
                  .config = FromMessage(message.config()),
                  .mode = FromMessage(message.mode()),
                  .generation = message.generation(),
                  .num_batches_tracked = message.num_batches_tracked(),
                  .create_time = ToTime(message.create_time()),
                  .update_time = ToTime(message.update_time()),
                  .durability = FromMessage(message.durability()),
                  .num_snapshots = message.num_snapshots()};
  if (message.has_parameters()) {
    session.parameters = Parameters{.weight = ToVector<float>(message.parameters().weight()),
                                    .bias = ToVector<float>(message.parameters().bias())};
  }
  if (message.has_statistics()) session.statistics = FromMessage(message.statistics());
  for (const auto& [open, found] : {std::pair{&message.open_merges(), &session.open_merges},
                                    std::pair{&message.open_calibrations(), &session.open_calibrations}}) {
    for (const v1::OpenCollection& each : *open) {
      found->push_back({.id = each.id(), .num_parts = each.num_parts(), .count = each.count()});
    }
  }
  return session;
}

ListSessionsReply FromMessage(const v1::ListSessionsReply& message) {
  ListSessionsReply reply{.next_page_token = message.next_page_token()};
  for (const v1::Session& session : message.sessions()) reply.sessions.push_back(FromMessage(session));
  return reply;
}

Diagnosis FromMessage(const v1::Diagnosis& message) {
  Diagnosis diagnosis{.name = message.name(),
                      .uid = message.uid(),
                      .generation = message.generation(),
                      .verdict = WithoutPrefix(v1::Verdict_Name(message.verdict()), "VERDICT_"),
                      .channel_gap_rms = ToVector<double>(message.channel_gap_rms()),
                      .flagged_channels = {message.flagged_channels().begin(), message.flagged_channels().end()},
                      .explanation = message.explanation(),
                      .advice = message.advice(),
                      .batch_count = message.batch_count()};
  if (message.has_gap_rms()) diagnosis.gap_rms = message.gap_rms();
  if (message.has_predicted_gap_rms()) diagnosis.predicted_gap_rms = message.predicted_gap_rms();
  if (message.has_relative_gap()) diagnosis.relative_gap = message.relative_gap();
  if (message.has_sampling_noise()) diagnosis.sampling_noise = message.sampling_noise();
  if (message.has_sampling_noise_limit()) diagnosis.sampling_noise_limit = message.sampling_noise_limit();
  for (const v1::CauseShare& share : message.causes()) {
    diagnosis.causes.push_back(
        {.cause = WithoutPrefix(v1::Cause_Name(share.cause()), "CAUSE_"), .share = share.share()});
  }
  return diagnosis;
}

// Every one of `messages`, of which a reply has at least one.
template <typename Result, typename Messages>
absl::StatusOr<std::vector<Result>> FromMessages(const char* method, const Messages& messages) {
  if (messages.empty()) return absl::InternalError(absl::StrCat("the server's reply to ", method, " names nothing"));
  std::vector<Result> results;
  for (const auto& message : messages) results.push_back(FromMessage(message));
  return results;
}

absl::StatusOr<std::vector<Session>> FromMessage(const v1::SetModeReply& message) {
  return FromMessages<Session>("SetMode", message.sessions());
}

absl::StatusOr<std::vector<Snapshot>> FromMessage(const v1::SnapshotStateReply& message) {
  return FromMessages<Snapshot>("SnapshotState", message.snapshots());
}

absl::StatusOr<std::vector<Session>> FromMessage(const v1::RestoreStateReply& message) {
  return FromMessages<Session>("RestoreState", message.sessions());
}

ListSnapshotsReply FromMessage(const v1::ListSnapshotsReply& message) {
  ListSnapshotsReply reply{.next_page_token = message.next_page_token()};
  for (const v1::Snapshot& snapshot : message.snapshots()) reply.snapshots.push_back(FromMessage(snapshot));
  return reply;
}

std::vector<DeletedSession> FromMessage(const v1::DeleteSessionReply& message) {
  std::vector<DeletedSession> deleted;
  for (const v1::DeletedSession& session : message.sessions()) {
    deleted.push_back({.name = session.name(), .uid = session.uid(), .generation = session.generation()});
  }
  return deleted;
}

absl::StatusOr<std::vector<Diagnosis>> FromMessage(const v1::DiagnoseReply& message) {
  return FromMessages<Diagnosis>("Diagnose", message.sessions());
}

absl::StatusOr<std::vector<SessionStats>> FromMessage(const v1::GetStatsReply& message) {
  return FromMessages<SessionStats>("GetStats", message.sessions());
}

ServerInfo FromMessage(const v1::ServerInfo& message) {
  ServerInfo info{.version = message.version(),
                  .start_time = ToTime(message.start_time()),
                  .limits = {.max_message_bytes = message.limits().max_message_bytes(),
                             .max_sessions = message.limits().max_sessions(),
                             .max_state_bytes = message.limits().max_state_bytes(),
                             .max_num_features = message.limits().max_num_features(),
                             .max_in_flight_bytes = message.limits().max_in_flight_bytes(),
                             .max_snapshots = message.limits().max_snapshots(),
                             .max_collections = message.limits().max_collections(),
                             .max_collection_parts = message.limits().max_collection_parts(),
                             .max_watchers = message.limits().max_watchers()},
                  .num_sessions = message.num_sessions(),
                  .state_bytes = message.state_bytes(),
                  .default_durability = FromMessage(message.default_durability())};
  for (const v1::Device& device : message.devices()) info.devices.push_back(FromMessage(device));
  return info;
}

ForwardResult FromMessage(const v1::ForwardReply& message) {
  ForwardResult result{.generation = message.generation(),
                       .snapshot_generation = message.snapshot_generation(),
                       .num_batches_tracked = message.num_batches_tracked(),
                       .uid = message.uid(),
                       .durability = FromMessage(message.durability())};
  if (v1::NormalizedWith_IsValid(message.normalized_with())) {
    result.normalized_with = static_cast<NormalizedWith>(message.normalized_with());
  }
  if (v1::Update_IsValid(message.update())) result.update = static_cast<Update>(message.update());
  if (message.has_batch_moments()) {
    result.batch_moments = FromMessage(message.batch_moments());
  }
  if (message.has_normalization()) {
    result.saved =
        SavedForward{.token = message.saved_forward(), .normalization = FromMessage(message.normalization())};
  }
  return result;
}

}  // namespace normserve::client
