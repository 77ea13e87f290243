// Models, layers and channels as JSON, for the web page and for scripts.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/rpc/call_gate.h"
#include "server/rpc/server_description.h"
#include "server/session/session_registry.h"

namespace normserve {

// Layers in one reply about a model; those that drifted less are left out and counted.
inline constexpr size_t kMaxLayersInReply = 1000;
// Channels in one reply about a session.
inline constexpr int64_t kMaxChannelsInReply = 4096;

// {"server": {"version", "start_time", "devices": [{"name", "driver", "type"}] in use, "num_sessions", "state_bytes",
// "max_state_bytes",
//   "calls_in_work", "is_draining"},
//  "models": [{"name", "is_session", "num_layers", "num_features", "modes": {"TRAIN": 3}, "update_time"}]}
//
// A model is what the first segment of a session's name says, "net/"; a session without a '/' stands for itself. In the
// order of names. Times are RFC 3339, UTC. Reads nothing from the store.
std::string ModelsJson(const SessionRegistry& registry, const CallGate& gate, const ServerDescription& server);

// {"name", "num_layers", "num_left_out", "layers": [LAYER]}, most drifted first, those without a drift last. LAYER:
//  {"name", "uid", "mode", "num_features", "generation", "num_batches_tracked", "create_time", "update_time",
//   "evidence"      what it is judged on: "LAST_BATCH", "OBSERVED" or "SHADOW" (evidence.h says which); null: nothing
//   "batch_count"   values a channel of that; 0: nothing
//   "drift"         its distance from the running statistics: moments/comparison.h; null without
//   "relative_gap"  evaluation's output less training's: moments/diagnosis.h; null without
//   "verdict", "main_cause" (null without), "causes": [{"cause", "share"}], "explanation", "advice",
//   "flags": {"DEAD": 2}}   channels by flag
//
// `name` is a model's with or without '/' at its end, or a session's. Errors as SessionRegistry::FindAll.
absl::StatusOr<std::string> ModelJson(SessionRegistry& registry, absl::string_view name);

// Which channels of a session.
struct ChannelQuery {
  bool by_drift = false;  // most drifted first; else in their own order
  int64_t begin = 0;      // the first, in that order
  int64_t count = 256;    // up to kMaxChannelsInReply
};

// LAYER as in ModelJson, and
//  {"config": {"epsilon", "averaging", "momentum", "affine", "track_running_stats", "running_variance", "durability",
//  "convention"},
//   "labels": {}, "snapshots": [{"name", "generation", "create_time"}],
//   "history": HistoryJson,
//   "flagged": [{"channel", "flags": ["DEAD"]}]   the first 100
//   "channels": {"begin", "order": "channel" or "drift", "channel": [2, 0, 1],   and of each of those, or null:
//                "running_mean", "running_std", "batch_mean", "batch_std" (the evidence's; biased), "weight", "bias",
//                "drift", "gap"}}
// What is not finite is null. Errors as SessionRegistry::Find; INVALID_ARGUMENT: begin or count.
absl::StatusOr<std::string> SessionJson(SessionRegistry& registry, absl::string_view name, const ChannelQuery& query);

}  // namespace normserve
