// Reads rows back as sessions and requests.
#pragma once

#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/store/sqlite_connection.h"
#include "server/store/state_store.h"

namespace normserve {

// The statements that read a store, on one connection that is its own. Used by one thread at a time. The methods are
// those of StateStore; epochs are given as the file has them.
class RowReader {
 public:
  static absl::StatusOr<std::unique_ptr<RowReader>> Create(std::unique_ptr<SqliteConnection> connection);

  absl::StatusOr<std::vector<StoredHead>> ListSessions();
  absl::StatusOr<std::vector<StoredRequest>> ListServerRequests();
  absl::StatusOr<StoredSession> Load(absl::string_view uid);
  absl::StatusOr<StoredMemory> LoadMemory(absl::string_view uid);

 private:
  explicit RowReader(std::unique_ptr<SqliteConnection> connection) : connection_(std::move(connection)) {}

  // What `load` loads, as of one moment.
  template <typename Loaded>
  absl::StatusOr<Loaded> InTransaction(absl::FunctionRef<absl::Status(Loaded&)> load);
  // The row id of the session, and its head.
  absl::StatusOr<int64_t> FindSession(absl::string_view uid, StoredHead& head);
  absl::Status LoadVectors(int sql, int64_t session, std::vector<StoredVector>& vectors);
  absl::Status LoadRequests(SqliteStatement::Run& run, std::vector<StoredRequest>& requests);
  absl::Status LoadCollected(int64_t session, std::vector<StoredCollectionRow>& collected);
  absl::Status LoadSnapshots(int64_t session, std::vector<StoredSnapshot>& snapshots);
  absl::Status LoadHistory(int64_t session, std::vector<StoredPoint>& history);
  SqliteStatement& at(int sql) { return statements_[sql]; }

  std::unique_ptr<SqliteConnection> connection_;
  std::vector<SqliteStatement> statements_;  // gone before the connection
};

}  // namespace normserve
