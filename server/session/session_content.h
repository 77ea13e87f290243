// Who a session is, and all of it that changes, as of one moment; immutable but for its owner.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "kernels/batch_norm.h"
#include "server/session/collection.h"
#include "server/session/fingerprint.h"
#include "server/session/history.h"
#include "server/session/session_state.h"

namespace normserve {

// Who a session is; constant.
struct SessionIdentity {
  std::string name;
  std::string uid;
  absl::Time create_time;
};

// Of a part that was observed under an id.
struct ObservedPart {
  Fingerprint id;
  Fingerprint contents;
};

// What a session keeps beside its state: stored with it, not cloned, nor in a snapshot, nor gone back on with one.
// Null: no batch so far.
struct Observations {
  std::shared_ptr<const Moments> last_batch;  // of the newest batch that updated the running statistics
  std::shared_ptr<const History> history;     // of all that updated them; PointsOf and RecentBatches read it
  std::shared_ptr<const Moments> shadow;      // of all that updated the shadow moments since SHADOW began, merged
  int64_t shadow_version = 0;                 // in a store, as SessionState's
  std::shared_ptr<const Moments> observed;    // of all that Observe was told since its last reset, merged
  std::shared_ptr<const std::vector<ObservedPart>> observed_parts;  // the newest of them, oldest first; null: none
  int64_t observed_version = 0;                                     // of both, as shadow_version
  std::shared_ptr<const Moments> observed_before;  // all of what the last reset forgot that found any; a reference
  int64_t observed_before_version = 0;             // as shadow_version
};

using Snapshots = std::map<std::string, StateSnapshot, std::less<>>;

struct SessionContent {
  std::shared_ptr<const SessionState> state;
  Observations observations;
  std::shared_ptr<const Snapshots> snapshots;      // never null
  std::shared_ptr<const Collections> collections;  // null: none
  bool is_deleted = false;
};

// Bytes that a session of `num_features` channels is charged with: its state's and those of what is kept beside it,
// whether it is there yet or not. The largest int64_t where they would be more.
int64_t SessionSizeBytes(int64_t num_features);

}  // namespace normserve
