// Sessions in one SQLite file.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "server/store/database_file.h"
#include "server/store/directory_lock.h"
#include "server/store/row_reader.h"
#include "server/store/row_writer.h"
#include "server/store/state_store.h"
#include "server/store/sync_failure.h"
#include "server/store/wal_checkpointer.h"
#include "server/store/wal_syncer.h"

namespace normserve {

struct SqliteStoreOptions {
  std::string directory;                // of normserve.db and what belongs to it; made if it is missing
  std::string vfs;                      // of SQLite; empty: the default one. Tests inject faults
  int64_t checkpoint_bytes = 16 << 20;  // of journal; it stays below four times this
  Warn warn;                            // of a damaged journal, whose newest changes are lost
};

// A StateStore in DIRECTORY/normserve.db. README.md describes the file.
//
// One thread makes all writes: what is queued together is committed together. FLUSH writes wait for a sync of the
// journal on another thread, which releases all committed before it began. A full disk or an I/O error refuses the
// writes of its transaction, later ones are tried again. A failed sync refuses all that come after it: nobody knows
// then what is on the disk. Thread-safe.
class SqliteStore final : public StateStore {
 public:
  // Opens a directory's store, or makes one, and takes ownership of it.
  // Errors, after which the directory is as it was: FAILED_PRECONDITION: another server has it, it is another program's
  // file or a newer server's, or it is no directory. DATA_LOSS: the file is damaged. UNAVAILABLE: it cannot be opened
  // or made. Messages name the file and what to do. A full disk is an error only where there is no store yet or an
  // older one: else reads are served, and the ownership is taken before the first write.
  static absl::StatusOr<std::unique_ptr<SqliteStore>> Open(SqliteStoreOptions options);

  // Closes. Not from within a call of the store's.
  ~SqliteStore() override;

  std::string location() const override { return file_.path(); }
  absl::StatusOr<std::vector<StoredHead>> ListSessions() override ABSL_LOCKS_EXCLUDED(read_mu_);
  absl::StatusOr<std::vector<StoredRequest>> ListServerRequests() override ABSL_LOCKS_EXCLUDED(read_mu_);
  absl::StatusOr<StoredMemory> LoadMemory(absl::string_view uid) override ABSL_LOCKS_EXCLUDED(read_mu_);
  absl::StatusOr<StoredSession> Load(absl::string_view uid) override ABSL_LOCKS_EXCLUDED(read_mu_);
  void Write(StoreWrite write, Stored stored) override ABSL_LOCKS_EXCLUDED(mu_);
  // Also copies the journal into the file and gives the directory free. Not from within a call of the store's.
  void Close() override ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Queued {
    StoreWrite write;
    Stored stored;
  };

  SqliteStore(SqliteStoreOptions options, std::unique_ptr<DirectoryLock> lock);

  // Connections, schema and ownership. After an error reads are served if the file can be read.
  absl::Status Connect() ABSL_LOCKS_EXCLUDED(read_mu_);
  absl::Status ConnectWriter();
  absl::Status ConnectReader(absl::StatusOr<std::unique_ptr<SqliteConnection>> connection)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(read_mu_);
  void Disconnect();
  // The reader or why there is none.
  absl::StatusOr<RowReader*> Reader() ABSL_EXCLUSIVE_LOCKS_REQUIRED(read_mu_);
  int64_t EpochsToCome() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(read_mu_);

  void WriterLoop();
  // False when there is nothing more to do.
  bool TakeQueued(std::vector<Queued>& queued) ABSL_LOCKS_EXCLUDED(mu_);
  void WriteAll(std::vector<Queued> queued);
  // The outcome of each write. An error of the whole refuses all.
  absl::Status Transact(const std::vector<Queued>& queued, std::vector<absl::Status>& outcomes);
  void ShutDown();

  const SqliteStoreOptions options_;
  const DatabaseFile file_;
  SyncFailure sync_failure_;

  // Those of the writer's thread, once it runs.
  std::unique_ptr<DirectoryLock> lock_;
  std::unique_ptr<SqliteConnection> write_connection_;  // null: not connected
  std::unique_ptr<RowWriter> writer_;
  std::unique_ptr<WalSyncer> syncer_;
  std::unique_ptr<WalCheckpointer> checkpointer_;
  int64_t log_frames_ = -1;  // after the newest commit

  absl::Mutex read_mu_;
  std::unique_ptr<RowReader> reader_ ABSL_GUARDED_BY(read_mu_);
  bool owned_ ABSL_GUARDED_BY(read_mu_) = false;  // the file has this store's epochs
  absl::Status unreadable_ ABSL_GUARDED_BY(read_mu_);

  absl::Mutex mu_;
  std::vector<Queued> queue_ ABSL_GUARDED_BY(mu_);
  bool closing_ ABSL_GUARDED_BY(mu_) = false;
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
  bool ending_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace normserve
