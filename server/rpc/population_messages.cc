#include "server/rpc/population_messages.h"

#include <utility>

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
    default:
      return FieldError("source", absl::StrCat("source is ", request.source(),
                                               ": send MOMENTS_SOURCE_OBSERVED (1), MOMENTS_SOURCE_LAST_BATCH (2) or "
                                               "MOMENTS_SOURCE_SHADOW (3)"));
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
