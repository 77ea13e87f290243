// A client of a StateStore that keeps its own log of what was acknowledged, and says what a store may hold after a
// crash.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/store/state_store.h"

namespace normserve {

struct WholeSession : StoredSession, StoredMemory {};

// All that a store holds, without the epochs.
struct StoreContents {
  std::map<std::string, WholeSession> sessions;      // by uid
  std::map<int64_t, StoredRequest> server_requests;  // by slot

  // Makes the change of a write, which follows.
  void Apply(const StoreWrite& write);
  // One text for equal contents.
  std::string Text() const;
};

// Reads all of a store. Also fails if the list of sessions and a session differ.
absl::StatusOr<StoreContents> ReadContents(StateStore& store);

// The scenario: sessions made, changed, with snapshots, deleted; changes of two at once; several queued together. Each
// write's bytes differ from those of all others.
class StoreScenario {
 public:
  explicit StoreScenario(Durability durability) : durability_(durability) {}

  // Runs one half (0 or 1) of the scenario over a store just opened, refused writes and all, from what the store holds.
  // Errors: INTERNAL: that is not allowed; others: the store cannot be read.
  absl::Status RunHalf(StateStore& store, int half);

  // What the store must hold now: everything acknowledged, nothing refused.
  const StoreContents& acknowledged() const { return acknowledged_; }
  // OK if a store that was opened again may hold this: what was acknowledged, or that and some of the writes that were
  // not, of those after the newest that was. Else INTERNAL.
  absl::Status Check(const StoreContents& contents) const;

  int64_t num_acknowledged() const { return num_acknowledged_; }
  int64_t num_refused() const { return num_refused_; }

  // A change that follows, of each session and of none; for a store that came back with `contents`.
  std::vector<StoreWrite> FollowingWrites(const StoreContents& contents);

 private:
  SessionWrite Make(SessionWrite::Kind kind, const std::string& uid);
  SessionWrite Create(const std::string& uid, const std::string& name);
  StoreWrite One(SessionWrite write) const;
  void Adopt(const StoreContents& contents);
  // Queues them together, waits for all, and logs what was answered.
  void Put(StateStore& store, std::vector<StoreWrite> writes);

  const Durability durability_;
  StoreContents acknowledged_;
  std::vector<StoreWrite> doubtful_;  // not acknowledged, since the newest that was
  std::map<std::string, int64_t> epochs_;
  int64_t serial_ = 0;
  int64_t num_acknowledged_ = 0;
  int64_t num_refused_ = 0;
};

}  // namespace normserve
