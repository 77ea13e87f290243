// Statistics as they change.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "normserve/call_options.h"
#include "normserve/connection.h"

namespace normserve::client {

// What BatchNorm::Watch and Model::Watch are to tell.
struct WatchOptions {
  // What each update holds. `stats.call.timeout` is how long the server may be away before the watch gives up; unset:
  // ClientOptions::timeout.
  StatsOptions stats = {};
  // Between updates, 10 ms to a day, changed or not. Zero: when something changed, ten a second at most.
  absl::Duration interval = absl::ZeroDuration();
  // Nothing is told before the session's generation is above this. Unset: the first update comes at once. Of a single
  // session only.
  std::optional<int64_t> after_generation = {};
};

// A watch under way. Who is slow is told less often, never of something old. A lost connection, or a server that starts
// again, is watched again after a while: then, as at first, an update has all (StatsUpdate::is_complete).
//
// Thread safety: one thread calls Next; Cancel may be called from any. Ends when it is dropped.
class StatsWatch {
 public:
  // Over `connection`, which the watch keeps.
  StatsWatch(std::shared_ptr<Connection> connection, ClientOptions options, WatchStatsRequest request);
  ~StatsWatch();
  StatsWatch(const StatsWatch&) = delete;
  StatsWatch& operator=(const StatsWatch&) = delete;

  // Waits for the next update. CANCELLED: Cancel was called. NOT_FOUND: there is no such session, or it was deleted
  // while it was watched. RESOURCE_EXHAUSTED: the server has max_watchers. After an error it says the same for good.
  absl::StatusOr<StatsUpdate> Next();

  // Ends the Next under way and those to come.
  void Cancel();

  // Calls `take` with every update until it returns false: OK; or until the watch ends: as Next.
  absl::Status ForEach(const std::function<bool(const StatsUpdate& update)>& take);

 private:
  struct State;
  const std::unique_ptr<State> state_;
};

}  // namespace normserve::client
