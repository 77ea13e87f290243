// Copies the write-ahead log into the database file, and keeps the log bounded.
#pragma once

#include <cstdint>
#include <memory>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "server/store/sqlite_connection.h"
#include "server/store/sync_failure.h"

namespace normserve {

// Of the log, per page: the page, SQLite's default size, and a header.
inline constexpr int64_t kLogFrameBytes = 4096 + 24;

// A thread that checkpoints beside the writer once the log has `checkpoint_bytes`. A log starts again from its
// beginning only if a checkpoint finds nothing added meanwhile; when it has passed twice that size, the writer waits
// for one between two transactions. So the log stays below four times checkpoint_bytes and one transaction, unless
// another program reads an old state for long or the disk refuses. Thread-safe.
class WalCheckpointer {
 public:
  // `failure` outlives it; a sync that fails is noted there, and no checkpoint is made once there is one.
  WalCheckpointer(std::unique_ptr<SqliteConnection> connection, int64_t checkpoint_bytes, SyncFailure& failure);
  ~WalCheckpointer();

  // The writer calls them around each transaction. `log_bytes` is the log's size after it; negative: unchanged.
  void BeforeTransaction();
  void AfterTransaction(int64_t log_bytes);

 private:
  void Loop();
  // Returns true if all of the log was copied; `log_bytes` is its size as this checkpoint saw it.
  bool Checkpoint(int mode, int64_t& log_bytes);
  bool WriterMayGo() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const std::unique_ptr<SqliteConnection> connection_;
  const int64_t checkpoint_bytes_;
  SyncFailure& failure_;

  absl::Mutex mu_;
  int64_t log_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t due_at_bytes_ ABSL_GUARDED_BY(mu_);
  bool in_transaction_ ABSL_GUARDED_BY(mu_) = false;
  bool writer_must_wait_ ABSL_GUARDED_BY(mu_) = false;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace normserve
