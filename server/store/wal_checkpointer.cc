#include "server/store/wal_checkpointer.h"

#include <utility>

namespace normserve {
namespace {

// How long the writer waits at most for readers of other programs.
constexpr int kReaderTimeoutMs = 100;

}  // namespace

WalCheckpointer::WalCheckpointer(std::unique_ptr<SqliteConnection> connection, int64_t checkpoint_bytes,
                                 SyncFailure& failure)
    : connection_(std::move(connection)),
      checkpoint_bytes_(checkpoint_bytes),
      failure_(failure),
      due_at_bytes_(checkpoint_bytes) {
  sqlite3_busy_timeout(connection_->get(), kReaderTimeoutMs);
  thread_ = std::thread([this] { Loop(); });
}

WalCheckpointer::~WalCheckpointer() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
  }
  thread_.join();
}

bool WalCheckpointer::WriterMayGo() const {
  return !writer_must_wait_ && (log_bytes_ < 4 * checkpoint_bytes_ || log_bytes_ < due_at_bytes_);
}

void WalCheckpointer::BeforeTransaction() {
  absl::MutexLock lock(&mu_);
  mu_.Await(absl::Condition(this, &WalCheckpointer::WriterMayGo));
  in_transaction_ = true;
}

void WalCheckpointer::AfterTransaction(int64_t log_bytes) {
  absl::MutexLock lock(&mu_);
  in_transaction_ = false;
  if (log_bytes >= 0) log_bytes_ = log_bytes;
}

bool WalCheckpointer::Checkpoint(int mode, int64_t& log_bytes) {
  if (!failure_.status().ok()) return false;
  int log_frames = 0;
  int copied_frames = 0;
  const int code = sqlite3_wal_checkpoint_v2(connection_->get(), "main", mode, &log_frames, &copied_frames);
  log_bytes = log_frames * kLogFrameBytes;
  if (code == SQLITE_OK) return log_frames == copied_frames;
  const absl::Status error = connection_->Error(code);
  if (IsSyncFailure(error)) failure_.Note(error);
  return false;
}

void WalCheckpointer::Loop() {
  for (;;) {
    {
      absl::MutexLock lock(&mu_);
      mu_.Await(absl::Condition(
          +[](WalCheckpointer* self)
               ABSL_NO_THREAD_SAFETY_ANALYSIS { return self->stopping_ || self->log_bytes_ >= self->due_at_bytes_; },
          this));
      if (stopping_) return;
    }
    int64_t copied_bytes = 0;
    bool restarts = Checkpoint(SQLITE_CHECKPOINT_PASSIVE, copied_bytes);
    absl::MutexLock lock(&mu_);
    // What was added meanwhile keeps the log from starting again.
    restarts = restarts && log_bytes_ == copied_bytes && !in_transaction_;
    if (!restarts && log_bytes_ >= 2 * checkpoint_bytes_) {
      writer_must_wait_ = true;
      mu_.Await(absl::Condition(
          +[](WalCheckpointer* self) ABSL_NO_THREAD_SAFETY_ANALYSIS { return !self->in_transaction_; }, this));
      mu_.Unlock();
      restarts = Checkpoint(SQLITE_CHECKPOINT_RESTART, copied_bytes);
      mu_.Lock();
      writer_must_wait_ = false;
    }
    if (restarts) log_bytes_ = 0;
    due_at_bytes_ =
        log_bytes_ + (restarts || log_bytes_ >= 2 * checkpoint_bytes_ ? checkpoint_bytes_ : checkpoint_bytes_ / 2);
  }
}

}  // namespace normserve
