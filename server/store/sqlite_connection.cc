#include "server/store/sqlite_connection.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/error_reason.h"

namespace normserve {
namespace {

// For locks of other programs, such as the sqlite3 shell.
constexpr int kBusyTimeoutMs = 3000;

// Of an error's metadata.
constexpr char kCodeKey[] = "sqlite_code";

// What to do, by result code.
absl::string_view Advice(int code) {
  // No space for the journal's index.
  if (code == SQLITE_IOERR_SHMSIZE) return "free space on its disk";
  switch (code & 0xff) {
    case SQLITE_FULL:
      return "free space on its disk";
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return "restore its directory from a backup, or name another directory to start without its sessions";
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return "close other programs that use it, such as the sqlite3 shell";
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
    case SQLITE_AUTH:
      return "let this user read and write the file and its directory";
    case SQLITE_NOMEM:
      return "give the server more memory";
    case SQLITE_IOERR:
      return "look for errors and free space of its disk";
    default:
      return "look at what uses the file beside this server";
  }
}

}  // namespace

absl::Status SqliteError(absl::string_view file, int code, absl::string_view detail) {
  const absl::string_view words = sqlite3_errstr(code);
  std::string message = absl::StrCat(file, ": ", words);
  if (!detail.empty() && detail != words) absl::StrAppend(&message, ": ", detail);
  absl::StrAppend(&message, " (SQLite error ", code, "): ", Advice(code));
  const int primary = code & 0xff;
  const bool lost = primary == SQLITE_CORRUPT || primary == SQLITE_NOTADB;
  return MakeError(lost ? absl::StatusCode::kDataLoss : absl::StatusCode::kUnavailable,
                   lost ? ErrorReason::kStoredDataLost : ErrorReason::kStoreRefused, message,
                   {{kCodeKey, absl::StrCat(code)}});
}

int SqliteCodeOf(const absl::Status& status) {
  const auto details = GetErrorDetails(status);
  int code = SQLITE_OK;
  if (!details.has_value() || details->metadata.count(kCodeKey) == 0) return code;
  return absl::SimpleAtoi(details->metadata.at(kCodeKey), &code) ? code : SQLITE_OK;
}

bool IsSyncFailure(const absl::Status& status) {
  const int code = SqliteCodeOf(status);
  return code == SQLITE_IOERR_FSYNC || code == SQLITE_IOERR_DIR_FSYNC;
}

absl::StatusOr<std::unique_ptr<SqliteConnection>> SqliteConnection::Open(const std::string& file,
                                                                         const std::string& vfs, int flags) {
  std::unique_ptr<SqliteConnection> connection(new SqliteConnection(file));
  const int code =
      sqlite3_open_v2(file.c_str(), &connection->connection_, flags | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE,
                      vfs.empty() ? nullptr : vfs.c_str());
  if (code != SQLITE_OK) return connection->Error(code);
  sqlite3_busy_timeout(connection->get(), kBusyTimeoutMs);
  return connection;
}

SqliteConnection::~SqliteConnection() { NORMSERVE_CHECK(sqlite3_close(connection_) == SQLITE_OK); }

int SqliteConnection::Execute(const std::string& sql) {
  return sqlite3_exec(connection_, sql.c_str(), nullptr, nullptr, nullptr);
}

absl::StatusOr<int64_t> SqliteConnection::QueryInteger(const std::string& sql) {
  auto statement = SqliteStatement::Prepare(*this, sql.c_str());
  if (!statement.ok()) return statement.status();
  SqliteStatement::Run run(*statement);
  const int code = run.Step();
  if (code != SQLITE_ROW) return Error(code);
  return run.IntegerAt(0);
}

absl::Status SqliteConnection::Error(int code) const {
  // The connection's own words only where they are about this error.
  const bool same = connection_ != nullptr && sqlite3_extended_errcode(connection_) == code;
  return SqliteError(file_, code, same ? sqlite3_errmsg(connection_) : "");
}

absl::StatusOr<SqliteStatement> SqliteStatement::Prepare(SqliteConnection& connection, const char* sql) {
  SqliteStatement statement;
  sqlite3_stmt* raw = nullptr;
  const int code = sqlite3_prepare_v3(connection.get(), sql, -1, SQLITE_PREPARE_PERSISTENT, &raw, nullptr);
  statement.statement_.reset(raw);
  if (code != SQLITE_OK) return connection.Error(code);
  return statement;
}

SqliteStatement::Run::~Run() {
  sqlite3_reset(statement_);
  sqlite3_clear_bindings(statement_);
}

SqliteStatement::Run& SqliteStatement::Run::Integer(int64_t value) {
  Bound(sqlite3_bind_int64(statement_, ++parameter_, value));
  return *this;
}

SqliteStatement::Run& SqliteStatement::Run::Text(absl::string_view value) {
  // Never a null pointer, which would bind NULL.
  const char* data = value.empty() ? "" : value.data();
  Bound(sqlite3_bind_text64(statement_, ++parameter_, data, value.size(), SQLITE_STATIC, SQLITE_UTF8));
  return *this;
}

SqliteStatement::Run& SqliteStatement::Run::Blob(absl::string_view value) {
  const char* data = value.empty() ? "" : value.data();
  Bound(sqlite3_bind_blob64(statement_, ++parameter_, data, value.size(), SQLITE_STATIC));
  return *this;
}

int SqliteStatement::Run::Step() { return error_ != SQLITE_OK ? error_ : sqlite3_step(statement_); }

int SqliteStatement::Run::Finish() {
  int code = SQLITE_ROW;
  while (code == SQLITE_ROW) code = Step();
  return code == SQLITE_DONE ? SQLITE_OK : code;
}

std::string SqliteStatement::Run::BytesAt(int column) const {
  // Blob first, then bytes: the order that SQLite asks for. Text is kept as UTF-8, so both kinds come unchanged.
  const void* data = sqlite3_column_blob(statement_, column);
  const int size_bytes = sqlite3_column_bytes(statement_, column);
  return data == nullptr ? std::string() : std::string(static_cast<const char*>(data), size_bytes);
}

void SqliteStatement::Run::Bound(int code) {
  if (error_ == SQLITE_OK) error_ = code;
}

}  // namespace normserve
