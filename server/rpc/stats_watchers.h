// Who watches statistics, and when they are told.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/rpc/call_gate.h"
#include "server/rpc/watch_call.h"
#include "server/rpc/watched_stats.h"
#include "server/session/session_registry.h"

namespace normserve {

// Watchers that ask for the same are a group: a message is made once for all of it, by one thread, out of what is there
// by then. A change costs who makes it a name in a set. A watcher that has not taken its last message misses the next
// ones, and is told of all that it missed, as it is by then, when it has.
//
// The pace of a group keeps the cost of all below a few hundredths of a processor: at most ten messages a second to
// each watcher, 100 to all together, and fifty times as much time between two of a group as they take.
//
// Thread-safe.
class StatsWatchers final : public WatchCall::Owner {
 public:
  // `registry` outlives it, and it the calls that it made.
  StatsWatchers(SessionRegistry& registry, int64_t max_watchers, int64_t max_message_bytes);
  ~StatsWatchers() override;

  using Reactor = grpc::ServerWriteReactor<grpc::ByteBuffer>;

  // Begins one WatchStats. The call ends with what WatchedStats says; UNAVAILABLE (DRAINING); RESOURCE_EXHAUSTED
  // (LIMIT_REACHED): max_watchers.
  Reactor* Watch(grpc::CallbackServerContext* context, CallGate& gate, const grpc::ByteBuffer& request);

  // Ends all watching with UNAVAILABLE (DRAINING), and refuses what comes later.
  void Drain() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Group {
    explicit Group(WatchedStats asked) : stats(std::move(asked)) {}

    const WatchedStats stats;
    std::set<std::string> changed;  // since the last message
    bool lags = false;              // somebody missed something and can be told now
    absl::Time next_time = absl::InfinitePast();
    std::set<int64_t> members;  // ids of watchers
  };
  struct Watcher {
    WatchCall* call = nullptr;
    std::shared_ptr<Group> group;
    bool is_started = false;  // the first message is on its way, or there is none
    bool is_writing = false;
    int64_t held_bytes = 0;   // of the message that is being written
    bool misses_all = false;  // it missed more than is worth to be counted
    std::set<std::string> missed;
  };
  // A message for some watchers.
  struct Delivery {
    std::vector<int64_t> ids;
    bool is_complete = false;
    std::set<std::string> names;
  };

  void OnWriteDone(WatchCall& call, bool ok) override ABSL_LOCKS_EXCLUDED(mutex_);
  void OnCancel(WatchCall& call) override ABSL_LOCKS_EXCLUDED(mutex_);
  void OnDone(WatchCall& call) override ABSL_LOCKS_EXCLUDED(mutex_);

  absl::Status Begin(WatchCall& call, const grpc::CallbackServerContext& context, CallGate& gate,
                     const grpc::ByteBuffer& request_bytes) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status Add(WatchCall& call, const WatchedStats& stats) ABSL_LOCKS_EXCLUDED(mutex_);
  // False: messages that nobody takes fill what may be held; the watcher has to be told later.
  bool Send(Watcher& watcher, const grpc::ByteBuffer& message) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  static void Miss(Watcher& watcher, const std::set<std::string>& names);

  void Run() ABSL_LOCKS_EXCLUDED(mutex_);
  // When a group is due; never if nothing is to be told.
  static absl::Time DueTime(const Group& group);
  // Tells `group` what is due.
  void Tell(const std::shared_ptr<Group>& group) ABSL_LOCKS_EXCLUDED(mutex_);
  std::vector<Delivery> Plan(Group& group) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Duration Pause(absl::Duration taken) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // Constant.
  SessionRegistry& registry_;
  const int64_t max_watchers_;
  const int64_t max_message_bytes_;

  absl::Mutex mutex_;
  bool is_drained_ ABSL_GUARDED_BY(mutex_) = false;
  bool ends_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t next_id_ ABSL_GUARDED_BY(mutex_) = 1;
  int64_t held_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<int64_t, Watcher> watchers_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, std::shared_ptr<Group>> groups_ ABSL_GUARDED_BY(mutex_);  // by WatchedStats::key

  std::thread thread_;  // started last
};

}  // namespace normserve
