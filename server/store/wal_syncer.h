// Makes committed writes survive power loss: one sync of the journal for all that wait.
#pragma once

#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "server/store/sqlite_connection.h"
#include "server/store/state_store.h"
#include "server/store/sync_failure.h"

namespace normserve {

// A thread that syncs the write-ahead log, through SQLite's own file object so that an injected VFS sees it and a new
// log's directory entry is synced too. Thread-safe.
class WalSyncer {
 public:
  // A write whose commit is over, or that was refused: what it is answered if the sync succeeds.
  struct Waiting {
    StateStore::Stored stored;
    absl::Status status;
  };

  // `failure` outlives it; a sync that fails is noted there, and none is tried once there is one.
  static absl::StatusOr<std::unique_ptr<WalSyncer>> Start(std::unique_ptr<SqliteConnection> connection,
                                                          SyncFailure& failure);
  // Syncs and answers what waits.
  ~WalSyncer();

  // Answers `waiting` in this order after a sync that begins from now on, and after what was added before.
  void Add(std::vector<Waiting> waiting);

 private:
  WalSyncer(std::unique_ptr<SqliteConnection> connection, sqlite3_file* log, SyncFailure& failure)
      : connection_(std::move(connection)), log_(log), failure_(failure) {}
  void Loop();

  // A connection of its own, because SQLite's file objects are not thread-safe; the file behind them is the same.
  const std::unique_ptr<SqliteConnection> connection_;
  sqlite3_file* const log_;
  SyncFailure& failure_;

  absl::Mutex mu_;
  std::vector<Waiting> waiting_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace normserve
