#include "server/store/sqlite_store.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/error_reason.h"
#include "server/store/schema.h"

namespace normserve {
namespace {

// The disk is at fault, not the file: what is there can be read.
bool IsDiskTrouble(const absl::Status& status) {
  const int primary = SqliteCodeOf(status) & 0xff;
  return !IsSyncFailure(status) && (primary == SQLITE_FULL || primary == SQLITE_IOERR || primary == SQLITE_BUSY);
}

absl::Status ClosedStatus(absl::string_view path) {
  return MakeError(absl::StatusCode::kUnavailable, ErrorReason::kStoreRefused,
                   absl::StrCat(path, ": is closed: the server is stopping, ask again once it is back"));
}

}  // namespace

SqliteStore::SqliteStore(SqliteStoreOptions options, std::unique_ptr<DirectoryLock> lock)
    : options_(std::move(options)), file_(options_.directory, options_.vfs), lock_(std::move(lock)) {}

absl::StatusOr<std::unique_ptr<SqliteStore>> SqliteStore::Open(SqliteStoreOptions options) {
  absl::Status status = PrepareDirectory(options.directory);
  if (!status.ok()) return status;
  auto lock = DirectoryLock::Acquire(options.directory);
  if (!lock.ok()) return lock.status();
  std::unique_ptr<SqliteStore> store(new SqliteStore(std::move(options), *std::move(lock)));

  status = store->file_.CheckComplete();
  if (!status.ok()) return status;
  int version = 0;
  if (store->file_.Exists()) {
    auto connection = store->file_.OpenQuietly();
    if (!connection.ok()) return connection.status();
    const auto read = ReadSchemaVersion(**connection);
    if (!read.ok()) return read.status();
    version = *read;
  }
  status = store->Connect();
  if (!status.ok() && !(version == SchemaVersion() && IsDiskTrouble(status))) return status;
  store->lock_->Announce();
  store->thread_ = std::thread([raw = store.get()] { raw->WriterLoop(); });
  return store;
}

SqliteStore::~SqliteStore() {
  if (!thread_.joinable()) {  // Open failed
    Disconnect();
    return;
  }
  Close();
  {
    absl::MutexLock lock(&mu_);
    ending_ = true;
  }
  thread_.join();
}

// ---- Connecting

absl::Status SqliteStore::Connect() {
  absl::MutexLock lock(&read_mu_);
  reader_ = nullptr;
  absl::Status status = ConnectWriter();
  if (status.ok()) status = ConnectReader(file_.OpenAnother());
  // Last, so that where anything fails the epochs are those to come, as the sessions were told.
  if (status.ok()) status = writer_->ClaimSessions();
  if (status.ok()) {
    owned_ = true;
    return status;
  }
  reader_ = nullptr;
  Disconnect();
  unreadable_ = ConnectReader(file_.OpenQuietly());
  return status;
}

absl::Status SqliteStore::ConnectReader(absl::StatusOr<std::unique_ptr<SqliteConnection>> connection) {
  if (!connection.ok()) return connection.status();
  auto reader = RowReader::Create(*std::move(connection));
  if (!reader.ok()) return reader.status();
  reader_ = *std::move(reader);
  return absl::OkStatus();
}

absl::Status SqliteStore::ConnectWriter() {
  if (const absl::Status status = file_.RenewLog(options_.warn); !status.ok()) return status;
  auto opened = file_.OpenToWrite();
  if (!opened.ok()) return opened.status();
  write_connection_ = *std::move(opened);
  auto writer = RowWriter::Create(*write_connection_);
  if (!writer.ok()) return writer.status();
  writer_ = *std::move(writer);
  sqlite3_wal_hook(
      write_connection_->get(),
      [](void* frames, sqlite3*, const char*, int count) {
        *static_cast<int64_t*>(frames) = count;
        return SQLITE_OK;
      },
      &log_frames_);

  auto connection = file_.OpenAnother();
  if (!connection.ok()) return connection.status();
  auto syncer = WalSyncer::Start(*std::move(connection), sync_failure_);
  if (!syncer.ok()) return syncer.status();
  syncer_ = *std::move(syncer);

  connection = file_.OpenAnother();
  if (!connection.ok()) return connection.status();
  checkpointer_ = std::make_unique<WalCheckpointer>(*std::move(connection), options_.checkpoint_bytes, sync_failure_);
  return absl::OkStatus();
}

void SqliteStore::Disconnect() {
  syncer_ = nullptr;
  checkpointer_ = nullptr;
  writer_ = nullptr;
  write_connection_ = nullptr;
}

// ---- Reading

absl::StatusOr<RowReader*> SqliteStore::Reader() {
  if (reader_ == nullptr) return unreadable_;
  return reader_.get();
}

int64_t SqliteStore::EpochsToCome() const { return owned_ ? 0 : 1; }

absl::StatusOr<std::vector<StoredHead>> SqliteStore::ListSessions() {
  absl::MutexLock lock(&read_mu_);
  const auto reader = Reader();
  if (!reader.ok()) return reader.status();
  auto heads = (*reader)->ListSessions();
  if (!heads.ok()) return heads;
  for (StoredHead& head : *heads) head.epoch += EpochsToCome();
  return heads;
}

absl::StatusOr<std::vector<StoredRequest>> SqliteStore::ListServerRequests() {
  absl::MutexLock lock(&read_mu_);
  const auto reader = Reader();
  if (!reader.ok()) return reader.status();
  return (*reader)->ListServerRequests();
}

absl::StatusOr<StoredSession> SqliteStore::Load(absl::string_view uid) {
  absl::MutexLock lock(&read_mu_);
  const auto reader = Reader();
  if (!reader.ok()) return reader.status();
  auto session = (*reader)->Load(uid);
  if (session.ok()) session->head.epoch += EpochsToCome();
  return session;
}

absl::StatusOr<StoredMemory> SqliteStore::LoadMemory(absl::string_view uid) {
  absl::MutexLock lock(&read_mu_);
  const auto reader = Reader();
  if (!reader.ok()) return reader.status();
  return (*reader)->LoadMemory(uid);
}

// ---- Writing

void SqliteStore::Write(StoreWrite write, Stored stored) {
  absl::MutexLock lock(&mu_);
  queue_.push_back({std::move(write), std::move(stored)});
}

void SqliteStore::Close() {
  absl::MutexLock lock(&mu_);
  closing_ = true;
  mu_.Await(absl::Condition(&closed_));
}

bool SqliteStore::TakeQueued(std::vector<Queued>& queued) {
  absl::MutexLock lock(&mu_);
  mu_.Await(absl::Condition(
      +[](SqliteStore* self) ABSL_NO_THREAD_SAFETY_ANALYSIS {
        return !self->queue_.empty() || (self->closing_ && !self->closed_) || self->ending_;
      },
      this));
  queued.swap(queue_);
  return !queued.empty() || (closing_ && !closed_);
}

void SqliteStore::WriterLoop() {
  std::vector<Queued> queued;
  while (TakeQueued(queued)) {
    if (!queued.empty()) {
      WriteAll(std::move(queued));
      queued.clear();
      continue;
    }
    // Writes are answered after this too, with a refusal.
    ShutDown();
    absl::MutexLock lock(&mu_);
    closed_ = true;
  }
}

void SqliteStore::WriteAll(std::vector<Queued> queued) {
  std::vector<absl::Status> outcomes(queued.size());
  absl::Status status = lock_ == nullptr ? ClosedStatus(file_.path()) : sync_failure_.status();
  if (status.ok() && write_connection_ == nullptr) {
    status = Connect();
    if (IsSyncFailure(status)) sync_failure_.Note(status);
  }
  if (status.ok()) {
    checkpointer_->BeforeTransaction();
    status = sync_failure_.status();  // of a checkpoint waited for
    if (status.ok()) status = Transact(queued, outcomes);
    checkpointer_->AfterTransaction(status.ok() ? log_frames_ * kLogFrameBytes : -1);
  }

  std::vector<WalSyncer::Waiting> waiting;
  for (size_t i = 0; i < queued.size(); ++i) {
    absl::Status outcome = status.ok() ? outcomes[i] : status;
    if (queued[i].write.durability == Durability::kFlush && syncer_ != nullptr) {
      // Refused ones too: those before it in the same session may still wait.
      waiting.push_back({std::move(queued[i].stored), std::move(outcome)});
    } else {
      std::move(queued[i].stored)(std::move(outcome));
    }
  }
  if (!waiting.empty()) syncer_->Add(std::move(waiting));
}

absl::Status SqliteStore::Transact(const std::vector<Queued>& queued, std::vector<absl::Status>& outcomes) {
  absl::Status status = writer_->Begin();
  for (size_t i = 0; status.ok() && i < queued.size(); ++i) {
    outcomes[i] = writer_->Apply(queued[i].write);
    if (!writer_->InTransaction()) status = outcomes[i];
  }
  if (status.ok()) status = writer_->Commit();
  if (IsSyncFailure(status)) sync_failure_.Note(status);
  return status;
}

void SqliteStore::ShutDown() {
  syncer_ = nullptr;
  checkpointer_ = nullptr;
  {
    absl::MutexLock lock(&read_mu_);
    reader_ = nullptr;
    unreadable_ = ClosedStatus(file_.path());
  }
  if (write_connection_ != nullptr) {
    // After a failed sync the file must not be touched: what the journal holds is for the next start to judge.
    const bool sound = sync_failure_.status().ok();
    const int code = !sound ? SQLITE_ERROR
                            : sqlite3_wal_checkpoint_v2(write_connection_->get(), "main", SQLITE_CHECKPOINT_TRUNCATE,
                                                        nullptr, nullptr);
    if (code != SQLITE_OK) {
      sqlite3_db_config(write_connection_->get(), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
    }
  }
  Disconnect();
  lock_ = nullptr;
}

}  // namespace normserve
