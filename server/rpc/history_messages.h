// What a session has seen over time, as messages.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "normserve/v1/batch_norm_service.pb.h"
#include "server/session/session_content.h"

namespace normserve {

// The points of a history that are asked for: all, to begin with.
struct HistoryChoice {
  absl::Time since = absl::InfinitePast();
  int64_t after_generation = -1;
};

// INVALID_ARGUMENT: since_time is no time, or after_generation negative.
absl::StatusOr<HistoryChoice> ReadHistoryRange(const v1::HistoryRange& range);

// Oldest first.
void WriteHistory(const SessionContent& content, const HistoryChoice& choice,
                  google::protobuf::RepeatedPtrField<v1::HistoryPoint>& messages);

// What a session's history takes in a message at most.
inline constexpr int64_t kMaxHistoryMessageBytes = int64_t{63} * 300;

}  // namespace normserve
