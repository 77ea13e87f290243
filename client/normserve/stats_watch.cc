#include "normserve/stats_watch.h"

#include <limits>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "normserve/retry_loop.h"

namespace normserve::client {

struct StatsWatch::State {
  State(std::shared_ptr<Connection> to, ClientOptions how, WatchStatsRequest what)
      : connection(std::move(to)), options(std::move(how)), request(std::move(what)) {}

  // The stream in use, one that is opened now if there is none. CANCELLED.
  absl::StatusOr<std::shared_ptr<StatsStream>> Stream() ABSL_LOCKS_EXCLUDED(mutex) {
    absl::MutexLock lock(&mutex);
    if (is_cancelled) return absl::CancelledError("the watch was cancelled");
    if (stream == nullptr) stream = connection->WatchStats(request);
    return stream;
  }

  // Waits before the next attempt; false: it was cancelled meanwhile.
  bool Wait(absl::Duration delay) ABSL_LOCKS_EXCLUDED(mutex) {
    absl::MutexLock lock(&mutex);
    stream = nullptr;
    const auto cancelled = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) { return is_cancelled; };
    return !mutex.AwaitWithTimeout(absl::Condition(&cancelled), delay);
  }

  const std::shared_ptr<Connection> connection;
  const ClientOptions options;
  const WatchStatsRequest request;
  absl::Status end;  // Next's alone

  absl::Mutex mutex;
  bool is_cancelled ABSL_GUARDED_BY(mutex) = false;
  std::shared_ptr<StatsStream> stream ABSL_GUARDED_BY(mutex);
};

StatsWatch::StatsWatch(std::shared_ptr<Connection> connection, ClientOptions options, WatchStatsRequest request)
    : state_(std::make_unique<State>(std::move(connection), std::move(options), std::move(request))) {}

StatsWatch::~StatsWatch() { Cancel(); }

absl::StatusOr<StatsUpdate> StatsWatch::Next() {
  if (!state_->end.ok()) return state_->end;
  std::optional<RetryLoop> retries;
  while (true) {
    const auto stream = state_->Stream();
    absl::StatusOr<StatsUpdate> update = stream.ok() ? (*stream)->Read() : absl::StatusOr<StatsUpdate>(stream.status());
    if (update.ok()) return update;
    const absl::Time now = absl::Now();
    if (!retries.has_value()) {
      // From when it is missed: it may have been silent for long.
      const absl::Duration patience = state_->request.patience.value_or(state_->options.timeout);
      RetryPolicy policy = state_->options.retry;
      // As often as there is time for: a server takes its time to start again.
      if (policy.max_attempts > 1) policy.max_attempts = std::numeric_limits<int>::max();
      retries.emplace(policy, now + patience, /*repeatable=*/true);
    }
    const auto delay = retries->NextDelay(update.status(), now);
    if (!delay.has_value() || !state_->Wait(*delay)) {
      absl::MutexLock lock(&state_->mutex);
      state_->end = state_->is_cancelled ? absl::CancelledError("the watch was cancelled") : update.status();
      return state_->end;
    }
  }
}

void StatsWatch::Cancel() {
  std::shared_ptr<StatsStream> stream;
  {
    absl::MutexLock lock(&state_->mutex);
    state_->is_cancelled = true;
    stream = state_->stream;
  }
  if (stream != nullptr) stream->Cancel();
}

absl::Status StatsWatch::ForEach(const std::function<bool(const StatsUpdate& update)>& take) {
  while (true) {
    const absl::StatusOr<StatsUpdate> update = Next();
    if (!update.ok()) return update.status();
    if (!take(*update)) return absl::OkStatus();
  }
}

}  // namespace normserve::client
