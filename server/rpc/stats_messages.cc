#include "server/rpc/stats_messages.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "kernels/error_reason.h"
#include "server/rpc/session_messages.h"
#include "server/session/field_error.h"

namespace normserve {
namespace {

absl::Status WriteStatsOf(const Session& session, const SessionContent& content, const v1::GetStatsRequest& request,
                          v1::SessionStatistics& message) {
  const SessionState& state = *content.state;
  const Observations& observations = content.observations;
  const auto channels = ReadChannelRange(request.channel_range(), session.name(), state.config.num_features);
  if (!channels.ok()) return channels.status();
  message.set_name(session.name());
  message.set_uid(session.uid());
  message.set_generation(state.generation);
  message.set_mode(WriteMode(state.mode));
  message.set_first_channel(static_cast<int64_t>(channels->first));
  WriteRunningStatistics(state, *channels, *message.mutable_statistics());
  const auto write = [&](const std::shared_ptr<const Moments>& moments, v1::Moments& to) {
    if (moments != nullptr) WriteMoments(*moments, *channels, to);
  };
  if (request.return_last_batch()) write(observations.last_batch, *message.mutable_last_batch());
  if (request.return_shadow()) write(observations.shadow, *message.mutable_shadow());
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Channels> ReadChannelRange(const v1::ChannelRange& range, const std::string& session,
                                          int64_t num_features) {
  if (range.first() < 0 || range.first() >= num_features) {
    return FieldError("channel_range.first", absl::StrCat("channel_range.first is ", range.first(), ": session \"",
                                                          session, "\" has channels 0 up to ", num_features - 1));
  }
  const int64_t rest = num_features - range.first();
  if (range.count() < 0 || range.count() > rest) {
    return FieldError("channel_range.count",
                      absl::StrCat("channel_range.count is ", range.count(), ": from channel ", range.first(),
                                   " on session \"", session, "\" has ", rest, " channels; 0 means all of them"));
  }
  return Channels{.first = static_cast<size_t>(range.first()),
                  .count = static_cast<size_t>(range.count() == 0 ? rest : range.count())};
}

void WriteMoments(const Moments& moments, Channels channels, v1::Moments& message) {
  message.set_count(moments.count);
  WriteVector(moments.mean, channels, *message.mutable_mean());
  WriteVector(moments.m2, channels, *message.mutable_m2());
}

void WriteRunningStatistics(const SessionState& state, Channels channels, v1::RunningStatistics& message) {
  if (state.running == nullptr) return;
  WriteVector(state.running->mean, channels, *message.mutable_running_mean());
  WriteVector(state.running->variance, channels, *message.mutable_running_var());
  message.set_num_batches_tracked(state.num_batches_tracked);
}

absl::Status CheckReplySize(const std::string& name, const std::vector<SessionContent>& contents, int64_t channel_bytes,
                            int64_t max_bytes) {
  if (!absl::EndsWith(name, "/")) return absl::OkStatus();
  int64_t size_bytes = 0;
  for (const SessionContent& content : contents) size_bytes += content.state->config.num_features * channel_bytes;
  if (size_bytes <= max_bytes) return absl::OkStatus();
  return MakeError(
      absl::StatusCode::kResourceExhausted, ErrorReason::kLimitReached,
      absl::StrCat("what is asked of the ", contents.size(), " sessions of \"", name, "\" takes ", size_bytes,
                   " bytes, a reply at most ", max_bytes, ": ask for a longer prefix or for single sessions"),
      {{"limit", "max_message_bytes"}});
}

absl::Status WriteStats(const std::vector<std::shared_ptr<Session>>& sessions,
                        const std::vector<SessionContent>& contents, const v1::GetStatsRequest& request,
                        int64_t max_bytes, v1::GetStatsReply& reply) {
  const bool is_model = absl::EndsWith(request.name(), "/");
  if (is_model && request.has_channel_range()) {
    return FieldError("channel_range", absl::StrCat("channel_range goes with a single session, and \"", request.name(),
                                                    "\" names a model: leave it out, or name one of its sessions"));
  }
  // What a channel takes at most; asked before anything is written.
  const int64_t channel_bytes =
      static_cast<int64_t>(2 * sizeof(double)) * (1 + request.return_last_batch() + request.return_shadow());
  absl::Status status = CheckReplySize(request.name(), contents, channel_bytes, max_bytes);
  for (size_t i = 0; status.ok() && i < sessions.size(); ++i) {
    status = WriteStatsOf(*sessions[i], contents[i], request, *reply.add_sessions());
  }
  return status;
}

}  // namespace normserve
