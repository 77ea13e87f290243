#include "server/rpc/watched_stats.h"

#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "kernels/error_reason.h"
#include "server/rpc/message_call.h"
#include "server/rpc/stats_messages.h"
#include "server/session/field_error.h"

namespace normserve {
namespace {

constexpr absl::Duration kMinInterval = absl::Milliseconds(10);
constexpr absl::Duration kMaxInterval = absl::Hours(24);

absl::StatusOr<absl::Duration> ReadInterval(const v1::WatchStatsRequest& request) {
  if (!request.has_interval()) return absl::ZeroDuration();
  const google::protobuf::Duration& interval = request.interval();
  const absl::Duration read = absl::Seconds(interval.seconds()) + absl::Nanoseconds(interval.nanos());
  if (read >= kMinInterval && read <= kMaxInterval) return read;
  return FieldError("interval", absl::StrCat("interval is ", absl::FormatDuration(read), ": send ",
                                             absl::FormatDuration(kMinInterval), " up to ",
                                             absl::FormatDuration(kMaxInterval), ", or leave it out"));
}

absl::Status Gone(const std::string& name) {
  const bool is_model = absl::EndsWith(name, "/");
  return MakeError(
      absl::StatusCode::kNotFound, ErrorReason::kSessionNotFound,
      absl::StrCat(is_model ? "the last session of \"" : "session \"", name, "\" was deleted while it was watched"),
      {{"session", name}});
}

}  // namespace

WatchedStats::WatchedStats(SessionRegistry& registry, int64_t max_bytes, const v1::WatchStatsRequest& request)
    : registry_(registry), max_bytes_(max_bytes), request_(request) {}

absl::StatusOr<WatchedStats> WatchedStats::Read(SessionRegistry& registry, int64_t max_bytes,
                                                const v1::WatchStatsRequest& request) {
  const std::string& name = request.stats().name();
  WatchedStats watched(registry, max_bytes, request);
  const auto interval = ReadInterval(request);
  if (!interval.ok()) return interval.status();
  watched.interval_ = *interval;
  watched.key_ = request.SerializeAsString();
  if (request.has_after_generation() && request.after_generation() < 0) {
    return FieldError("after_generation", absl::StrCat("after_generation is ", request.after_generation(),
                                                       ": send the generation that you have, 0 or more"));
  }
  if (absl::EndsWith(name, "/")) {
    if (request.has_after_generation()) {
      return FieldError("after_generation", absl::StrCat("after_generation goes with a single session, and \"", name,
                                                         "\" names a model: leave it out"));
    }
    return watched;
  }
  auto session = registry.Find(name);
  if (!session.ok()) return session.status();
  absl::StrAppend(&watched.key_, (*session)->uid());
  watched.session_ = *std::move(session);
  return watched;
}

bool WatchedStats::Covers(const std::string& name) const {
  const std::string& watched = request_.stats().name();
  return session_ == nullptr ? absl::StartsWith(name, watched) : name == watched;
}

absl::StatusOr<std::optional<grpc::ByteBuffer>> WatchedStats::Message(const std::set<std::string>* names) const {
  v1::WatchStatsReply reply;
  if (session_ != nullptr) {
    absl::Status status = WriteSession(reply);
    if (!status.ok()) return status;
    if (reply.sessions().empty()) return std::nullopt;
  } else {
    absl::Status status = WriteModel(names, reply);
    if (!status.ok()) return status;
    const bool is_empty = reply.sessions().empty() && reply.deleted_sessions().empty();
    if (is_empty && interval_ == absl::ZeroDuration()) return std::nullopt;
  }
  grpc::ByteBuffer bytes;
  absl::Status status = SerialiseMessage(reply, bytes);
  if (!status.ok()) return status;
  return bytes;
}

absl::Status WatchedStats::WriteSession(v1::WatchStatsReply& reply) const {
  const SessionContent content = session_->Observe();
  if (content.is_deleted) return Gone(session_->name());
  absl::Status status = WriteStats({session_}, {content}, request_.stats(), max_bytes_, *reply.mutable_sessions());
  // Only now, so that what is wrong with the request is told at once.
  if (request_.has_after_generation() && content.state->generation <= request_.after_generation()) {
    reply.clear_sessions();
  }
  return status;
}

absl::Status WatchedStats::WriteModel(const std::set<std::string>* names, v1::WatchStatsReply& reply) const {
  const auto all = registry_.FindAll(request_.stats().name());
  if (absl::IsNotFound(all.status()) && names != nullptr) return Gone(request_.stats().name());
  if (!all.ok()) return all.status();
  const auto all_contents = registry_.ObserveAll(*all);
  std::set<std::string> missing;
  if (names != nullptr) missing = *names;
  std::vector<std::shared_ptr<Session>> sessions;
  std::vector<SessionContent> contents;
  for (size_t i = 0; i < all->size(); ++i) {
    const bool is_asked = missing.erase((*all)[i]->name()) > 0 || names == nullptr;
    // One that is being deleted is noted again when it is gone.
    if (!is_asked || all_contents[i].is_deleted) continue;
    sessions.push_back((*all)[i]);
    contents.push_back(all_contents[i]);
  }
  for (const std::string& name : missing) reply.add_deleted_sessions(name);
  reply.set_is_complete(names == nullptr);
  return WriteStats(sessions, contents, request_.stats(), max_bytes_, *reply.mutable_sessions());
}

}  // namespace normserve
