// A connection to a SQLite file and its prepared statements, with SQLite's result codes turned into statuses.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "sqlite3.h"

namespace normserve {

// `code` as a status: "FILE: what SQLite says: detail (SQLite error 13): what to do". DATA_LOSS (STORED_DATA_LOST) for
// a damaged file, else UNAVAILABLE (STORE_REFUSED).
absl::Status SqliteError(absl::string_view file, int code, absl::string_view detail);

// The result code of a status that SqliteError made; SQLITE_OK if another made it.
int SqliteCodeOf(const absl::Status& status);

// True for the error of a failed sync, after which nobody knows what is on the disk.
bool IsSyncFailure(const absl::Status& status);

// One connection. Used by one thread at a time. Statements must be gone before it is.
class SqliteConnection {
 public:
  // `flags` are SQLITE_OPEN_…; `vfs` empty is the default one. The connection gives extended result codes and waits a
  // few seconds for locks of other programs. Errors: those of Error().
  static absl::StatusOr<std::unique_ptr<SqliteConnection>> Open(const std::string& file, const std::string& vfs,
                                                                int flags);
  ~SqliteConnection();
  SqliteConnection(const SqliteConnection&) = delete;
  SqliteConnection& operator=(const SqliteConnection&) = delete;

  // Runs SQL that gives no rows that matter; a result code.
  int Execute(const std::string& sql);
  // The first column of the first row of `sql`.
  absl::StatusOr<int64_t> QueryInteger(const std::string& sql);
  // SqliteError with this connection's own words.
  absl::Status Error(int code) const;
  absl::Status Check(int code) const { return code == SQLITE_OK ? absl::OkStatus() : Error(code); }

  sqlite3* get() const { return connection_; }
  const std::string& file() const { return file_; }

 private:
  explicit SqliteConnection(const std::string& file) : file_(file) {}

  const std::string file_;
  sqlite3* connection_ = nullptr;
};

// A prepared statement, kept and run many times.
class SqliteStatement {
 public:
  static absl::StatusOr<SqliteStatement> Prepare(SqliteConnection& connection, const char* sql);

  // One run of a statement: binds parameters in turn, steps, and on leaving makes the statement ready for the next.
  // Bound text and blobs must outlive it.
  class Run {
   public:
    explicit Run(SqliteStatement& statement) : statement_(statement.statement_.get()) {}
    ~Run();
    Run(const Run&) = delete;
    Run& operator=(const Run&) = delete;

    Run& Integer(int64_t value);
    Run& Text(absl::string_view value);
    Run& Blob(absl::string_view value);
    // SQLITE_ROW, SQLITE_DONE or an error, also one of binding.
    int Step();
    // Steps to the end; SQLITE_OK or an error.
    int Finish();

    int64_t IntegerAt(int column) const { return sqlite3_column_int64(statement_, column); }
    // Text or blob.
    std::string BytesAt(int column) const;

   private:
    void Bound(int code);

    sqlite3_stmt* statement_;
    int parameter_ = 0;
    int error_ = SQLITE_OK;
  };

 private:
  struct Finalize {
    void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
  };
  std::unique_ptr<sqlite3_stmt, Finalize> statement_;
};

}  // namespace normserve
