// Merges and calibrations of a session or a model: parts come in any number of calls, one call ends it.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "server/moments/calibration.h"
#include "server/moments/merge.h"
#include "server/session/change_guard.h"
#include "server/session/collection.h"
#include "server/session/layer_moments.h"
#include "server/session/session.h"

namespace normserve {

struct GatherRequest {
  CollectionKind kind = CollectionKind::kMerge;
  std::string name;  // of a session or a model
  ChangeGuard guard;
  std::string id;  // of the collection
  struct Part {
    std::string id;
    GivenMoments given;
  };
  std::vector<Part> parts;
  bool commit = false;
  bool drop = false;
  MergePolicy policy = MergePolicy::kExact;               // of a merge
  CalibrationMethod method = CalibrationMethod::kPooled;  // of a calibration
  std::string to_snapshot;                                // of a calibration; empty: the session itself
  bool is_empty = false;                                  // the batch that came was empty

  // Of a batch that came in place of moments, with the one part's id; nothing: it was empty.
  void TakeBatch(std::optional<Moments> moments) {
    is_empty = !moments.has_value();
    parts[0].given.moments = std::move(moments);
  }
};

struct GatheredSession {
  GatheringAnswer answer;
  std::shared_ptr<const CollectionResult> result;  // set once committed
};

// Adds the parts to the collection of each of `sessions` (which the name speaks of, with `contents`, as many) that they
// are of; with `commit` merges or calibrates all that have some; with `drop` forgets it. All in one transaction. Calls
// `gathered` once, with one entry for each session that was given parts, or, where the request commits, drops or brings
// nothing, that has some; in the order of the sessions.
//
// INVALID_ARGUMENT as MatchMoments, and (INVALID_FIELD): ids, drop beside other things, to_snapshot without commit;
// (PART_CONFLICT); what server/moments says of the parts. NOT_FOUND (COLLECTION_NOT_FOUND): nothing was gathered under
// this id. FAILED_PRECONDITION (COLLECTION_COMMITTED): it is committed, and the request brings parts or drops it;
// (NOT_TRACKED). RESOURCE_EXHAUSTED (LIMIT_REACHED): collections, parts, or bytes of state. DATA_LOSS: its parts are
// lost. ABORTED: `guard`. As Session::TakeSnapshot: to_snapshot. And what the store says.
void Gather(const std::vector<std::shared_ptr<Session>>& sessions, const std::vector<SessionContent>& contents,
            const CollectionLimits& limits, GatherRequest request,
            absl::AnyInvocable<void(absl::StatusOr<std::vector<GatheredSession>>) &&> gathered);

}  // namespace normserve
