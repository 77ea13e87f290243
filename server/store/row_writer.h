// Makes the changes of StoreWrites as rows, in transactions.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/store/sqlite_connection.h"
#include "server/store/state_store.h"

namespace normserve {

// The statements that change a store, on one connection. Used by one thread at a time.
class RowWriter {
 public:
  // `connection` outlives it and has the newest schema.
  static absl::StatusOr<std::unique_ptr<RowWriter>> Create(SqliteConnection& connection);

  // One transaction: Begin, any number of Apply, Commit. When one of them gives an error and InTransaction() is false,
  // or when Commit fails, nothing of the transaction was made.
  absl::Status Begin();
  // All of `write` or nothing of it. Errors: NOT_OWNER, STORE_REFUSED. Those that concern this write alone, such as a
  // sequence that does not follow, leave the transaction and what it holds as they were.
  absl::Status Apply(const StoreWrite& write);
  absl::Status Commit();
  bool InTransaction() const;

  // Takes ownership: raises the epoch of every session. A transaction of its own.
  absl::Status ClaimSessions();

 private:
  explicit RowWriter(SqliteConnection& connection) : connection_(connection) {}

  SqliteStatement& at(int sql) { return statements_[sql]; }
  int Execute(int sql) { return SqliteStatement::Run(at(sql)).Finish(); }
  // `code` as the status of a write that is refused.
  absl::Status Error(int code);
  void Rollback();

  absl::Status ApplySession(const SessionWrite& write);
  absl::StatusOr<int64_t> CreateSession(const SessionWrite& write);
  // The row id of the session, if epoch and sequence are right.
  absl::StatusOr<int64_t> FindToChange(const SessionWrite& write);
  // Updates or deletes its row in `sessions`.
  absl::StatusOr<int64_t> ChangeSession(const SessionWrite& write);
  int DeleteRows(int64_t session);
  int ApplyRows(int64_t session, const SessionWrite& write);
  int PutRequest(int64_t session, const StoredRequest& request);

  SqliteConnection& connection_;
  std::vector<SqliteStatement> statements_;
};

}  // namespace normserve
