// What one WatchStats request asks for, and what it is told.
#pragma once

#include <grpcpp/support/byte_buffer.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "normserve/v1/batch_norm_service.pb.h"
#include "server/session/session_registry.h"

namespace normserve {

// Those who ask for the same are told the same, made once. Immutable, thread-safe.
class WatchedStats {
 public:
  // INVALID_ARGUMENT: interval, after_generation; and what GetStats of the same would say of the name. `registry`
  // outlives it.
  static absl::StatusOr<WatchedStats> Read(SessionRegistry& registry, int64_t max_bytes,
                                           const v1::WatchStatsRequest& request);

  // Equal for requests that are told the same.
  const std::string& key() const { return key_; }

  // Between messages; zero: when something changed.
  absl::Duration interval() const { return interval_; }

  // Whether a change of the session `name` is of interest.
  bool Covers(const std::string& name) const;

  // What is to be sent of the sessions `names`, whether they are there or gone; null: of all. Nothing: there is nothing
  // to tell yet. NOT_FOUND (SESSION_NOT_FOUND): all that was watched is gone; and what GetStats would say.
  absl::StatusOr<std::optional<grpc::ByteBuffer>> Message(const std::set<std::string>* names) const;

 private:
  WatchedStats(SessionRegistry& registry, int64_t max_bytes, const v1::WatchStatsRequest& request);

  // Of a single session.
  absl::Status WriteSession(v1::WatchStatsReply& reply) const;
  absl::Status WriteModel(const std::set<std::string>* names, v1::WatchStatsReply& reply) const;

  SessionRegistry& registry_;
  const int64_t max_bytes_;
  const v1::WatchStatsRequest request_;
  absl::Duration interval_;
  std::shared_ptr<Session> session_;  // null: a model
  std::string key_;
};

}  // namespace normserve
