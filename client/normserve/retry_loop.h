// Decides whether and when a failed call is made again. Internal: not installed.
#pragma once

#include <optional>
#include <type_traits>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "normserve/call_options.h"

namespace normserve::client {

// One call with its repetitions. Not thread-safe; made for each call.
class RetryLoop {
 public:
  // `repeatable`: whether the call may reach the server twice without harm.
  RetryLoop(const RetryPolicy& policy, absl::Time deadline, bool repeatable);

  // How long to wait before the next attempt, after one that ended with `status` at `now`; nothing if there is to be
  // none: success, an error that repeating does not mend, a call that must not be repeated, or no time left.
  std::optional<absl::Duration> NextDelay(const absl::Status& status, absl::Time now);

 private:
  const RetryPolicy policy_;
  const absl::Time deadline_;
  const bool repeatable_;
  int attempts_ = 0;
  absl::Duration backoff_;
};

// Calls `attempt` until it succeeds or the policy ends it; returns what the last attempt returned.
template <typename Attempt>
auto RunWithRetries(const ClientOptions& options, absl::Time deadline, bool repeatable, Attempt attempt) {
  RetryLoop loop(options.retry, deadline, repeatable);
  while (true) {
    auto result = attempt();
    absl::Status status;
    if constexpr (std::is_same_v<decltype(result), absl::Status>) {
      status = result;
    } else {
      status = result.status();
    }
    const std::optional<absl::Duration> delay = loop.NextDelay(status, options.clock.now());
    if (!delay.has_value()) return result;
    options.clock.sleep(*delay);
  }
}

}  // namespace normserve::client
