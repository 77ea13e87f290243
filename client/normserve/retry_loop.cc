#include "normserve/retry_loop.h"

#include <algorithm>

#include "absl/random/random.h"
#include "normserve/error_info.h"

namespace normserve::client {
namespace {

// Whether what is exhausted stays so until somebody deletes something or asks for less.
bool IsLastingLimit(const absl::Status& status) {
  const auto info = GetErrorInfo(status);
  if (!info.has_value() || info->metadata.count("limit") == 0) return false;
  const std::string& limit = info->metadata.at("limit");
  return limit == "max_sessions" || limit == "max_snapshots" || limit == "max_state_bytes" ||
         limit == "max_message_bytes" || limit == "max_collections" || limit == "max_collection_parts";
}

// Whether a repetition may end better. Nothing here cancels a call, so a CANCELLED is the word of a server that shuts
// down, or of a proxy. DEADLINE_EXCEEDED is not among them: each attempt has the caller's own deadline.
bool IsTransient(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsCancelled(status) ||
         (absl::IsResourceExhausted(status) && GetRetryDelay(status).has_value() && !IsLastingLimit(status));
}

}  // namespace

RetryLoop::RetryLoop(const RetryPolicy& policy, absl::Time deadline, bool repeatable)
    : policy_(policy), deadline_(deadline), repeatable_(repeatable), backoff_(policy.initial_backoff) {}

std::optional<absl::Duration> RetryLoop::NextDelay(const absl::Status& status, absl::Time now) {
  ++attempts_;
  if (!repeatable_ || attempts_ >= policy_.max_attempts || !IsTransient(status)) return std::nullopt;
  absl::BitGen random;
  absl::Duration delay = backoff_ * absl::Uniform(absl::IntervalClosed, random, 0.5, 1.0);
  backoff_ = std::min(backoff_ * policy_.multiplier, policy_.max_backoff);
  // The server's word is the least; the jitter keeps its callers from coming back all at once.
  delay += std::max(absl::ZeroDuration(), GetRetryDelay(status).value_or(absl::ZeroDuration()));
  if (now + delay >= deadline_) return std::nullopt;
  return delay;
}

}  // namespace normserve::client
