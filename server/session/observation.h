// What a session, or a model, has observed: moments beside the state, which every Observe adds to.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "server/session/change_guard.h"
#include "server/session/layer_moments.h"
#include "server/session/session.h"

namespace normserve {

// Parts that a session remembers by their ids.
constexpr size_t kMaxObservedParts = 1024;

struct ObserveRequest {
  std::string name;  // of a session or a model
  ChangeGuard guard;
  GivenMoments given;     // none: nothing but a reset
  bool is_empty = false;  // what came was an empty batch, which adds nothing
  std::string part_id;    // empty: counts as often as it comes
  bool dry_run = false;
  bool reset = false;  // begin anew: what was observed becomes what was observed before, unless it is nothing

  // Of a batch that came in place of moments; nothing: it was empty.
  void TakeBatch(std::optional<Moments> moments) {
    is_empty = !moments.has_value();
    given.moments = std::move(moments);
  }
};

struct ObservedSession {
  ObservationAnswer answer;
  std::shared_ptr<const Moments> moments;  // of a dry run
};

// Adds what is given to what `sessions`, which the name speaks of, have observed, or with `dry_run` answers what would
// come of it, as of `contents` (as many). Calls `observed` once, with one entry for each session that was given data or
// reset, in their order.
//
// INVALID_ARGUMENT as MatchMoments, and (INVALID_FIELD): no data and no reset, a part_id above 255 bytes, more than
// 2^53 values; (PART_CONFLICT): other data came under this part_id; (NON_FINITE): sums beyond double. ABORTED: `guard`.
// And what the store says.
void Observe(const std::vector<std::shared_ptr<Session>>& sessions, const std::vector<SessionContent>& contents,
             ObserveRequest request,
             absl::AnyInvocable<void(absl::StatusOr<std::vector<ObservedSession>>) &&> observed);

}  // namespace normserve
