// What a session has seen over time, as JSON.
#pragma once

#include <nlohmann/json.hpp>

#include "server/session/session_content.h"

namespace normserve {

// Oldest first, the newest few and ever fewer of those before (server/session/history.h):
//  [{"update"       batches that the session had folded in by then, this one too
//    "generation", "num_batches_tracked", "time"
//    "count"        values a channel of the batch; 0: no batch, the statistics were replaced
//    "relative_gap" evaluation's output less training's on this batch; null: not known
//    "running_mean", "running_variance", "batch_mean", "batch_variance"
//                   over the channels {"low", "median", "high"}, low and high 5 % and 95 %; null: not known}]
nlohmann::ordered_json HistoryJson(const SessionContent& content);

}  // namespace normserve
