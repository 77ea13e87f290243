#include "server/store/database_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "kernels/error_reason.h"
#include "server/store/journal_file.h"
#include "server/store/schema.h"

namespace normserve {
namespace {

absl::Status Refusal(absl::StatusCode code, absl::string_view path, absl::string_view why) {
  return MakeError(code, ErrorReason::kStoreRefused, absl::StrCat(path, ": ", why));
}

absl::Status UseWriteAheadLog(SqliteConnection& connection) {
  auto statement = SqliteStatement::Prepare(connection, "PRAGMA journal_mode = WAL");
  if (!statement.ok()) return statement.status();
  SqliteStatement::Run run(*statement);
  if (const int code = run.Step(); code != SQLITE_ROW) return connection.Error(code);
  if (run.BytesAt(0) == "wal") return absl::OkStatus();
  return Refusal(absl::StatusCode::kUnavailable, connection.file(),
                 "its file system cannot hold a write-ahead log: name a directory on a local disk");
}

}  // namespace

absl::Status PrepareDirectory(const std::string& directory) {
  if (mkdir(directory.c_str(), 0700) != 0 && errno != EEXIST) {
    return Refusal(absl::StatusCode::kUnavailable, directory,
                   absl::StrCat("cannot be made: ", std::strerror(errno), ": make it, writable for this user"));
  }
  struct stat entry = {};
  if (stat(directory.c_str(), &entry) != 0 || !S_ISDIR(entry.st_mode)) {
    return Refusal(absl::StatusCode::kFailedPrecondition, directory, "is not a directory: name one");
  }
  for (const char* name : {"", "/normserve.db", "/normserve.db-wal", "/normserve.db-shm"}) {
    const std::string path = absl::StrCat(directory, name);
    const int mode = R_OK | W_OK | (*name == '\0' ? X_OK : 0);
    if (faccessat(AT_FDCWD, path.c_str(), mode, AT_EACCESS) == 0 || (errno == ENOENT && *name != '\0')) continue;
    return Refusal(absl::StatusCode::kUnavailable, path,
                   absl::StrCat(std::strerror(errno), ": let this user read and write it"));
  }
  return absl::OkStatus();
}

DatabaseFile::DatabaseFile(const std::string& directory, const std::string& vfs)
    : path_(absl::StrCat(directory, "/normserve.db")), vfs_(vfs) {}

bool DatabaseFile::HasFile(const std::string& path) const {
  sqlite3_vfs* vfs = sqlite3_vfs_find(vfs_.empty() ? nullptr : vfs_.c_str());
  int exists = 0;
  return vfs == nullptr || vfs->xAccess(vfs, path.c_str(), SQLITE_ACCESS_EXISTS, &exists) != SQLITE_OK || exists != 0;
}

absl::StatusOr<std::unique_ptr<SqliteConnection>> DatabaseFile::OpenQuietly() const {
  absl::Status status;
  // Alone, SQLite keeps the log's index in memory instead of a file. Beside another program, which has made that file,
  // it cannot be alone.
  for (const char* mode : {"PRAGMA locking_mode = EXCLUSIVE", "PRAGMA locking_mode = NORMAL"}) {
    auto connection = SqliteConnection::Open(path_, vfs_, SQLITE_OPEN_READWRITE);
    if (!connection.ok()) return connection.status();
    SqliteConnection& opened = **connection;
    // A log with something in it stays as it is when the connection closes; an empty one goes again.
    if (HasFile(absl::StrCat(path_, "-wal"))) {
      sqlite3_db_config(opened.get(), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
    }
    sqlite3_busy_timeout(opened.get(), 200);
    if (const int code = opened.Execute(mode); code != SQLITE_OK) return opened.Error(code);
    status = ReadSchemaVersion(opened).status();
    if (status.ok()) return connection;
    if ((SqliteCodeOf(status) & 0xff) != SQLITE_BUSY) break;
  }
  return status;
}

absl::Status DatabaseFile::CheckComplete() const {
  const std::string log = absl::StrCat(path_, "-wal");
  if (Exists() || !HasFile(log)) return absl::OkStatus();
  return Refusal(absl::StatusCode::kFailedPrecondition, path_,
                 absl::StrCat("is missing or empty, and its journal ", log,
                              " is there: bring both back from a copy, or move the journal away to start without "
                              "sessions"));
}

absl::Status DatabaseFile::RenewLog(const Warn& warn) const {
  const std::string path = absl::StrCat(path_, "-wal");
  if (!HasFile(path)) return absl::OkStatus();
  auto log = JournalFile::Open(path, vfs_);
  if (!log.ok()) return log.status();
  const auto extent = log->Measure();
  if (!extent.ok()) return extent.status();
  if (!extent->is_whole() && warn != nullptr) {
    const std::string copy = absl::StrCat(path, ".damaged");
    const absl::Status copied = log->CopyTo(copy, vfs_);
    warn(absl::StrCat(path, ": ",
                      extent->has_header ? absl::StrCat("is damaged behind frame ", extent->sound_frames, ", where ",
                                                        extent->frames_behind, " more follow")
                                         : std::string("is damaged from its beginning"),
                      ", by power loss or by its disk: what was changed since then is lost; ",
                      copied.ok() ? absl::StrCat("it is kept as ", copy)
                                  : absl::StrCat("it could not be kept as ", copy, " (", copied.message(), ")")));
  }
  return log->Renew();
}

absl::StatusOr<std::unique_ptr<SqliteConnection>> DatabaseFile::OpenToWrite() const {
  // Made for this user alone; SQLite gives the journal the same mode.
  if (const int made = open(path_.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600); made >= 0) close(made);
  auto connection = SqliteConnection::Open(path_, vfs_, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
  if (!connection.ok()) return connection;
  SqliteConnection& opened = **connection;
  // A new file is written with a rollback journal: its header then says at once what it is.
  absl::Status status = opened.Check(opened.Execute("PRAGMA synchronous = EXTRA; PRAGMA temp_store = MEMORY"));
  if (!status.ok()) return status;
  const auto version = ReadSchemaVersion(opened);
  if (!version.ok()) return version.status();
  if (*version == 0) status = MigrateSchema(opened, 0);
  if (status.ok()) status = UseWriteAheadLog(opened);
  if (status.ok() && *version > 0 && *version < SchemaVersion()) {
    status = MigrateSchema(opened, *version);
    // So that the new version stands in the file's own header. May fail: the log has it.
    if (status.ok()) sqlite3_wal_checkpoint_v2(opened.get(), "main", SQLITE_CHECKPOINT_TRUNCATE, nullptr, nullptr);
  }
  if (status.ok()) {
    status = opened.Check(
        opened.Execute("PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = -8192"));
  }
  if (!status.ok()) return status;
  return connection;
}

absl::StatusOr<std::unique_ptr<SqliteConnection>> DatabaseFile::OpenAnother() const {
  auto connection = SqliteConnection::Open(path_, vfs_, SQLITE_OPEN_READWRITE);
  if (!connection.ok()) return connection;
  SqliteConnection& opened = **connection;
  const absl::Status status = opened.Check(
      opened.Execute("PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0; PRAGMA temp_store = MEMORY"));
  if (!status.ok()) return status;
  // Opens the log.
  const auto version = ReadSchemaVersion(opened);
  if (!version.ok()) return version.status();
  return connection;
}

}  // namespace normserve
