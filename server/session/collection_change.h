// What a request about a merge or calibration makes of one session's content.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/moments/calibration.h"
#include "server/moments/merge.h"
#include "server/session/collection.h"
#include "server/session/session_changes.h"

namespace normserve {

// One session's share of a request.
struct CollectionStep {
  CollectionKey key;
  std::vector<std::shared_ptr<const CollectedPart>> parts;
  bool commit = false;
  bool drop = false;
  MergePolicy policy = MergePolicy::kExact;
  CalibrationMethod method = CalibrationMethod::kPooled;
  std::string to_snapshot;
  CollectionLimits limits;
};

// What the parts of `collection` come to, but for the session's own numbers: the long sums, which need no lock.
// INVALID_ARGUMENT as MergeParts and EstimatePopulation.
struct CollectionSums {
  std::shared_ptr<const Collection> of;
  MergedMoments merged;             // of a merge
  PopulationStatistics population;  // of a calibration
};
absl::StatusOr<CollectionSums> SumUp(const CollectionStep& step, std::shared_ptr<const Collection> collection,
                                     size_t num_features);

// The session's collection with the step's parts; `before` may be null. Errors as Gather's of one session.
absl::StatusOr<std::shared_ptr<const Collection>> WithParts(const CollectionStep& step, const std::string& session,
                                                            std::shared_ptr<const Collection> before,
                                                            int64_t num_features);

// The change, whose answer is a GatheringAnswer; one of a session without this collection changes nothing. `sums` may
// be of another collection than it comes to then: they are made anew.
absl::StatusOr<SessionChange> ChangeCollection(const CollectionStep& step, const CollectionSums* sums,
                                               const SessionJournal& journal, const SessionContent& newest);

}  // namespace normserve
