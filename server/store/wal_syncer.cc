#include "server/store/wal_syncer.h"

#include <utility>

namespace normserve {

absl::StatusOr<std::unique_ptr<WalSyncer>> WalSyncer::Start(std::unique_ptr<SqliteConnection> connection,
                                                            SyncFailure& failure) {
  sqlite3_file* log = nullptr;
  const int code = sqlite3_file_control(connection->get(), "main", SQLITE_FCNTL_JOURNAL_POINTER, &log);
  if (code != SQLITE_OK) return connection->Error(code);
  if (log == nullptr || log->pMethods == nullptr) return connection->Error(SQLITE_CANTOPEN);
  std::unique_ptr<WalSyncer> syncer(new WalSyncer(std::move(connection), log, failure));
  syncer->thread_ = std::thread([raw = syncer.get()] { raw->Loop(); });
  return syncer;
}

WalSyncer::~WalSyncer() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
  }
  thread_.join();
}

void WalSyncer::Add(std::vector<Waiting> waiting) {
  absl::MutexLock lock(&mu_);
  for (Waiting& one : waiting) waiting_.push_back(std::move(one));
}

void WalSyncer::Loop() {
  for (;;) {
    std::vector<Waiting> waiting;
    {
      absl::MutexLock lock(&mu_);
      mu_.Await(absl::Condition(
          +[](WalSyncer* self) ABSL_NO_THREAD_SAFETY_ANALYSIS { return self->stopping_ || !self->waiting_.empty(); },
          this));
      if (waiting_.empty()) return;
      waiting.swap(waiting_);
    }
    if (failure_.status().ok()) {
      const int code = log_->pMethods->xSync(log_, SQLITE_SYNC_NORMAL);
      if (code != SQLITE_OK) failure_.Note(connection_->Error(code));
    }
    const absl::Status failure = failure_.status();
    for (Waiting& one : waiting) std::move(one.stored)(one.status.ok() ? failure : one.status);
  }
}

}  // namespace normserve
