#include "server/rpc/session_messages.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "kernels/error_reason.h"
#include "server/rpc/config_message.h"
#include "server/session/field_error.h"
#include "server/session/page_token.h"
#include "server/session/session_name.h"

namespace normserve {
namespace {

constexpr int kDefaultPageSize = 100;
constexpr int kMaxPageSize = 1000;

void WriteTime(absl::Time time, google::protobuf::Timestamp& message) {
  message.set_seconds(absl::ToUnixSeconds(time));
  message.set_nanos(static_cast<int>((time - absl::FromUnixSeconds(message.seconds())) / absl::Nanoseconds(1)));
}

template <typename T, typename Field>
void WriteVector(const std::vector<T>& values, size_t first, size_t count, Field& field) {
  field.Add(values.begin() + static_cast<ptrdiff_t>(first), values.begin() + static_cast<ptrdiff_t>(first + count));
}

void WriteStatistics(const SessionState& state, size_t first, size_t count, v1::RunningStatistics& message) {
  if (state.running == nullptr) return;
  WriteVector(state.running->mean, first, count, *message.mutable_running_mean());
  WriteVector(state.running->variance, first, count, *message.mutable_running_var());
  message.set_num_batches_tracked(state.num_batches_tracked);
}

}  // namespace

void WriteMoments(const Moments& moments, size_t first, size_t count, v1::Moments& message) {
  message.set_count(moments.count);
  WriteVector(moments.mean, first, count, *message.mutable_mean());
  WriteVector(moments.m2, first, count, *message.mutable_m2());
}

absl::StatusOr<std::optional<Mode>> ReadMode(int mode) {
  switch (mode) {
    case v1::MODE_UNSPECIFIED:
      return std::optional<Mode>();
    case v1::MODE_TRAIN:
      return Mode::kTrain;
    case v1::MODE_EVAL:
      return Mode::kEval;
    case v1::MODE_SHADOW:
      return Mode::kShadow;
    default:
      return FieldError("mode",
                        absl::StrCat("mode is ", mode, ": send MODE_TRAIN (1), MODE_EVAL (2) or MODE_SHADOW (3)"));
  }
}

v1::Mode WriteMode(Mode mode) {
  return mode == Mode::kTrain ? v1::MODE_TRAIN : mode == Mode::kEval ? v1::MODE_EVAL : v1::MODE_SHADOW;
}

absl::StatusOr<bool> ReadView(int view) {
  switch (view) {
    case v1::SESSION_VIEW_UNSPECIFIED:
    case v1::SESSION_VIEW_BASIC:
      return false;
    case v1::SESSION_VIEW_FULL:
      return true;
    default:
      return FieldError("view",
                        absl::StrCat("view is ", view, ": send SESSION_VIEW_BASIC (1) or SESSION_VIEW_FULL (2)"));
  }
}

absl::StatusOr<SessionDraft> ReadDraft(const v1::CreateSessionRequest& request) {
  const auto mode = ReadMode(request.mode());
  if (!mode.ok()) return mode.status();
  SessionDraft draft{.name = request.name(), .request_id = request.request_id(), .mode = mode->value_or(Mode::kTrain)};
  auto config = ReadConfig(request.config());
  if (!config.ok()) return config.status();
  draft.config = *std::move(config);
  const auto durability = ReadDurability(request.config().durability());
  if (!durability.ok()) return durability.status();
  draft.durability = *durability;
  const auto& parameters = request.parameters();
  draft.parameters.weight.assign(parameters.weight().begin(), parameters.weight().end());
  draft.parameters.bias.assign(parameters.bias().begin(), parameters.bias().end());
  if (request.has_statistics()) {
    const auto& statistics = request.statistics();
    NormalizationStatistics& values = draft.statistics.emplace();
    values.mean.assign(statistics.running_mean().begin(), statistics.running_mean().end());
    values.variance.assign(statistics.running_var().begin(), statistics.running_var().end());
    draft.num_batches_tracked = statistics.num_batches_tracked();
  }
  return draft;
}

void WriteDescription(const SessionDescription& description, v1::Session& message) {
  message.set_name(description.name);
  message.set_uid(description.uid);
  WriteConfig(description.config, *message.mutable_config());
  message.set_mode(WriteMode(description.mode));
  message.set_generation(description.generation);
  message.set_num_batches_tracked(description.num_batches_tracked);
  WriteTime(description.create_time, *message.mutable_create_time());
  WriteTime(description.update_time, *message.mutable_update_time());
  message.set_durability(WriteDurability(description.config.durability));
  message.set_num_snapshots(static_cast<int>(description.num_snapshots));
}

void WriteSnapshot(const SnapshotDescription& description, v1::Snapshot& message) {
  message.set_name(description.session);
  message.set_snapshot(description.name);
  message.set_uid(description.uid);
  message.set_generation(description.generation);
  WriteTime(description.create_time, *message.mutable_create_time());
  message.set_size_bytes(description.size_bytes);
  message.set_num_batches_tracked(description.num_batches_tracked);
}

absl::Status WriteSnapshots(const std::vector<std::shared_ptr<Session>>& sessions,
                            const std::vector<SessionContent>& contents, const v1::ListSnapshotsRequest& request,
                            v1::ListSnapshotsReply& reply) {
  if (request.page_size() < 0 || request.page_size() > kMaxPageSize) {
    return FieldError("page_size", absl::StrCat("page_size is ", request.page_size(), ": send 0 up to ", kMaxPageSize));
  }
  const int page_size = request.page_size() == 0 ? kDefaultPageSize : request.page_size();
  // A page of a model ends at a session's snapshot, one of a session at a snapshot. No name has a blank in it.
  const bool is_model = absl::EndsWith(request.name(), "/");
  std::pair<std::string, std::string> last;
  if (!request.page_token().empty()) {
    const auto last_name = ReadPageToken(Listing::kSnapshots, request.name(), request.page_token());
    if (!last_name.ok()) return last_name.status();
    if (is_model) {
      last = absl::StrSplit(*last_name, absl::MaxSplits(' ', 1));
    } else {
      last = {request.name(), *last_name};
    }
  }
  for (size_t i = 0; i < sessions.size(); ++i) {
    const Session& session = *sessions[i];
    if (session.name() < last.first) continue;
    const Snapshots& snapshots = *contents[i].snapshots;
    auto at = session.name() == last.first ? snapshots.upper_bound(last.second) : snapshots.begin();
    for (; at != snapshots.end(); ++at) {
      // A name that is not legal comes of damage: nobody can ask for it.
      if (!CheckSnapshotName("snapshot", at->first).ok()) continue;
      if (reply.snapshots_size() == page_size) {
        const v1::Snapshot& end = reply.snapshots(page_size - 1);
        const std::string last_name = is_model ? absl::StrCat(end.name(), " ", end.snapshot()) : end.snapshot();
        reply.set_next_page_token(MakePageToken(Listing::kSnapshots, request.name(), last_name));
        return absl::OkStatus();
      }
      WriteSnapshot(session.Describe(at->first, at->second), *reply.add_snapshots());
    }
  }
  return absl::OkStatus();
}

void WriteSession(const Session& session, bool with_vectors, v1::Session& message) {
  const SessionContent content = session.Observe();
  const auto& state = content.state;
  WriteDescription(session.Describe(content), message);
  if (!with_vectors) return;
  const size_t num_features = state->parameters->weight.size();
  if (state->config.affine) {
    WriteVector(state->parameters->weight, 0, num_features, *message.mutable_parameters()->mutable_weight());
    WriteVector(state->parameters->bias, 0, num_features, *message.mutable_parameters()->mutable_bias());
  }
  if (state->running != nullptr) WriteStatistics(*state, 0, num_features, *message.mutable_statistics());
}

namespace {

absl::Status WriteStatsOf(const Session& session, const SessionContent& content, const v1::GetStatsRequest& request,
                          v1::SessionStatistics& message) {
  const auto& [state, observations, snapshots, is_deleted] = content;
  const v1::ChannelRange& range = request.channel_range();
  const int64_t num_features = state->config.num_features;
  if (range.first() < 0 || range.first() >= num_features) {
    return FieldError("channel_range.first",
                      absl::StrCat("channel_range.first is ", range.first(), ": session \"", session.name(),
                                   "\" has channels 0 up to ", num_features - 1));
  }
  const int64_t rest = num_features - range.first();
  if (range.count() < 0 || range.count() > rest) {
    return FieldError("channel_range.count", absl::StrCat("channel_range.count is ", range.count(), ": from channel ",
                                                          range.first(), " on session \"", session.name(), "\" has ",
                                                          rest, " channels; 0 means all of them"));
  }
  const int64_t count = range.count() == 0 ? rest : range.count();
  message.set_name(session.name());
  message.set_uid(session.uid());
  message.set_generation(state->generation);
  message.set_mode(WriteMode(state->mode));
  message.set_first_channel(range.first());
  const auto first = static_cast<size_t>(range.first()), size = static_cast<size_t>(count);
  WriteStatistics(*state, first, size, *message.mutable_statistics());
  const auto write = [&](const std::shared_ptr<const Moments>& moments, v1::Moments& to) {
    if (moments != nullptr) WriteMoments(*moments, first, size, to);
  };
  if (request.return_last_batch()) write(observations.last_batch, *message.mutable_last_batch());
  if (request.return_shadow()) write(observations.shadow, *message.mutable_shadow());
  return absl::OkStatus();
}

}  // namespace

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
