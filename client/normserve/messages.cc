#include "normserve/messages.h"

#include <utility>
#include <variant>

#include "absl/strings/cord.h"
#include "normserve/v1/error_details.pb.h"

namespace normserve::client {
namespace {

v1::Mode ToMessage(Mode mode) { return static_cast<v1::Mode>(mode); }

// A mode that this library has no name for is kUnspecified.
Mode FromMessage(v1::Mode mode) {
  return mode == v1::MODE_TRAIN || mode == v1::MODE_EVAL ? static_cast<Mode>(mode) : Mode::kUnspecified;
}

absl::Time FromMessage(const google::protobuf::Timestamp& time) {
  return absl::FromUnixSeconds(time.seconds()) + absl::Nanoseconds(time.nanos());
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

RunningStatistics FromMessage(const v1::RunningStatistics& message) {
  return {.running_mean = ToVector<double>(message.running_mean()),
          .running_var = ToVector<double>(message.running_var()),
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
  config.set_num_features(request.config.num_features);
  if (request.config.epsilon.has_value()) config.set_epsilon(*request.config.epsilon);
  if (request.config.momentum.has_value()) config.set_momentum(*request.config.momentum);
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

v1::GetStatsRequest ToMessage(const GetStatsRequest& request) {
  v1::GetStatsRequest message;
  message.set_name(request.name);
  if (request.first_channel != 0 || request.num_channels != 0) {
    message.mutable_channel_range()->set_first(request.first_channel);
    if (request.num_channels != 0) message.mutable_channel_range()->set_count(request.num_channels);
  }
  return message;
}

v1::ForwardRequest ToMessage(const ForwardRequest& request) {
  v1::ForwardRequest message;
  message.set_name(request.name);
  CopyTo(request.guards, message);
  message.set_mode(ToMessage(request.mode));
  if (std::holds_alternative<UseBatch>(request.normalize_with)) message.mutable_batch();
  if (std::holds_alternative<UseRunning>(request.normalize_with)) message.mutable_running();
  if (const auto* given = std::get_if<Moments>(&request.normalize_with)) {
    message.mutable_given()->set_count(given->count);
    CopyTo(given->mean, message.mutable_given()->mutable_mean());
    CopyTo(given->m2, message.mutable_given()->mutable_m2());
  }
  message.set_update(static_cast<v1::Update>(request.update));
  message.set_return_batch_moments(request.return_batch_moments);
  return message;
}

Session FromMessage(const v1::Session& message) {
  Session session{.name = message.name(),
                  .uid = message.uid(),
                  .config = {.num_features = message.config().num_features()},
                  .mode = FromMessage(message.mode()),
                  .generation = message.generation(),
                  .num_batches_tracked = message.num_batches_tracked(),
                  .create_time = FromMessage(message.create_time()),
                  .update_time = FromMessage(message.update_time())};
  if (message.config().has_epsilon()) session.config.epsilon = message.config().epsilon();
  if (message.config().has_momentum()) session.config.momentum = message.config().momentum();
  if (message.has_parameters()) {
    session.parameters = Parameters{.weight = ToVector<float>(message.parameters().weight()),
                                    .bias = ToVector<float>(message.parameters().bias())};
  }
  if (message.has_statistics()) session.statistics = FromMessage(message.statistics());
  return session;
}

ListSessionsReply FromMessage(const v1::ListSessionsReply& message) {
  ListSessionsReply reply{.next_page_token = message.next_page_token()};
  for (const v1::Session& session : message.sessions()) reply.sessions.push_back(FromMessage(session));
  return reply;
}

absl::StatusOr<Session> FromMessage(const v1::SetModeReply& message) {
  if (message.sessions().empty()) return absl::InternalError("the server's reply to SetMode names no session");
  return FromMessage(message.sessions(0));
}

absl::StatusOr<SessionStats> FromMessage(const v1::GetStatsReply& message) {
  if (message.sessions().empty()) return absl::InternalError("the server's reply to GetStats names no session");
  const v1::SessionStatistics& session = message.sessions(0);
  return SessionStats{.name = session.name(),
                      .uid = session.uid(),
                      .generation = session.generation(),
                      .mode = FromMessage(session.mode()),
                      .statistics = FromMessage(session.statistics()),
                      .first_channel = session.first_channel()};
}

ServerInfo FromMessage(const v1::ServerInfo& message) {
  ServerInfo info{.version = message.version(),
                  .start_time = FromMessage(message.start_time()),
                  .limits = {.max_message_bytes = message.limits().max_message_bytes(),
                             .max_sessions = message.limits().max_sessions(),
                             .max_state_bytes = message.limits().max_state_bytes(),
                             .max_num_features = message.limits().max_num_features(),
                             .max_in_flight_bytes = message.limits().max_in_flight_bytes()},
                  .num_sessions = message.num_sessions(),
                  .state_bytes = message.state_bytes()};
  for (const v1::Device& device : message.devices()) info.devices.push_back(FromMessage(device));
  return info;
}

ForwardResult FromMessage(const v1::ForwardReply& message) {
  ForwardResult result{.generation = message.generation(),
                       .snapshot_generation = message.snapshot_generation(),
                       .num_batches_tracked = message.num_batches_tracked(),
                       .uid = message.uid()};
  if (v1::NormalizedWith_IsValid(message.normalized_with())) {
    result.normalized_with = static_cast<NormalizedWith>(message.normalized_with());
  }
  if (v1::Update_IsValid(message.update())) result.update = static_cast<Update>(message.update());
  if (message.has_batch_moments()) {
    result.batch_moments = Moments{.count = message.batch_moments().count(),
                                   .mean = ToVector<double>(message.batch_moments().mean()),
                                   .m2 = ToVector<double>(message.batch_moments().m2())};
  }
  return result;
}

}  // namespace normserve::client
