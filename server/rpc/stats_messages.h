// Statistics and moments as messages.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "normserve/v1/batch_norm_service.pb.h"
#include "server/session/session.h"

namespace normserve {

// Channels first <= c < first + count.
struct Channels {
  size_t first = 0;
  size_t count = 0;
};

// The channels that `range` names of `session`, which has `num_features`; of an empty message all. INVALID_ARGUMENT:
// the range leaves them.
absl::StatusOr<Channels> ReadChannelRange(const v1::ChannelRange& range, const std::string& session,
                                          int64_t num_features);

// RESOURCE_EXHAUSTED (LIMIT_REACHED): a reply about the model `name` would take more than `max_bytes`, at
// `channel_bytes` a channel and `session_bytes` a session. A single session is never too large.
absl::Status CheckReplySize(const std::string& name, const std::vector<SessionContent>& contents, int64_t channel_bytes,
                            int64_t max_bytes, int64_t session_bytes = 0);

// What `request` asks of each session, as `contents` (as many) has it. Errors as CheckReplySize and ReadChannelRange,
// and INVALID_ARGUMENT: a value that this server does not know.
absl::Status WriteStats(const std::vector<std::shared_ptr<Session>>& sessions,
                        const std::vector<SessionContent>& contents, const v1::GetStatsRequest& request,
                        int64_t max_bytes, google::protobuf::RepeatedPtrField<v1::SessionStatistics>& messages);

void WriteMoments(const Moments& moments, Channels channels, v1::Moments& message);

// The running statistics, and what was folded into them. Nothing where the session tracks none.
void WriteRunningStatistics(const SessionState& state, Channels channels, v1::RunningStatistics& message);

// Appends those of `channels`.
template <typename T, typename Field>
void WriteVector(const std::vector<T>& values, Channels channels, Field& field) {
  const auto begin = values.begin() + static_cast<ptrdiff_t>(channels.first);
  field.Add(begin, begin + static_cast<ptrdiff_t>(channels.count));
}

}  // namespace normserve
