#include "server/store/row_writer.h"

#include "absl/strings/str_cat.h"
#include "kernels/error_reason.h"

namespace normserve {
namespace {

enum Sql {
  kBegin,
  kCommit,
  kRollback,
  kSavepoint,
  kRelease,
  kRollbackTo,
  kClaim,
  kInsertSession,
  kFindSession,
  kUpdateSession,
  kDeleteSession,
  kPutCurrent,
  kDropCurrent,
  kAddKept,
  kDropKept,
  kPutRequest,
  kPutServerRequest,
  kAddSnapshot,
  kDropSnapshot,
  kPutPoint,
  kAddCollected,
  kDropCollection,
  kDeleteCurrentOf,
  kDeleteKeptOf,
  kDeleteRequestsOf,
  kDeleteSnapshotsOf,
  kDeleteHistoryOf,
  kDeleteCollectedOf,
  kSqlCount
};

constexpr const char* kSql[] = {
    "BEGIN IMMEDIATE",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT one",
    "RELEASE one",
    "ROLLBACK TO one",
    "UPDATE sessions SET epoch = epoch + 1",
    "INSERT INTO sessions(name, uid, epoch, sequence, record) VALUES(?, ?, ?, ?, ?)",
    "SELECT id, epoch, sequence FROM sessions WHERE uid = ?",
    "UPDATE sessions SET record = ?, sequence = ? WHERE id = ?",
    "DELETE FROM sessions WHERE id = ?",
    "INSERT INTO current_vectors(session, kind, version, data) VALUES(?, ?, ?, ?)"
    " ON CONFLICT(session, kind) DO UPDATE SET version = excluded.version, data = excluded.data",
    "DELETE FROM current_vectors WHERE session = ? AND kind = ?",
    // One that a refused write should have dropped may be there still.
    "INSERT INTO kept_vectors(session, kind, version, data) VALUES(?, ?, ?, ?)"
    " ON CONFLICT(session, kind, version) DO UPDATE SET data = excluded.data",
    "DELETE FROM kept_vectors WHERE session = ? AND kind = ? AND version = ?",
    "INSERT INTO requests(session, slot, sequence, request_id, record) VALUES(?, ?, ?, ?, ?)"
    " ON CONFLICT(session, slot) DO UPDATE SET sequence = excluded.sequence, request_id = excluded.request_id,"
    " record = excluded.record",
    "INSERT INTO server_requests(slot, sequence, request_id, record) VALUES(?, ?, ?, ?)"
    " ON CONFLICT(slot) DO UPDATE SET sequence = excluded.sequence, request_id = excluded.request_id,"
    " record = excluded.record",
    "INSERT INTO snapshots(session, name, record) VALUES(?, ?, ?)",
    "DELETE FROM snapshots WHERE session = ? AND name = ?",
    "INSERT INTO history(session, slot, record) VALUES(?, ?, ?)"
    " ON CONFLICT(session, slot) DO UPDATE SET record = excluded.record",
    "INSERT INTO collected_parts(session, collection, part, size_bytes, record) VALUES(?, ?, ?, ?, ?)",
    "DELETE FROM collected_parts WHERE session = ? AND collection = ?",
    "DELETE FROM current_vectors WHERE session = ?",
    "DELETE FROM kept_vectors WHERE session = ?",
    "DELETE FROM requests WHERE session = ?",
    "DELETE FROM snapshots WHERE session = ?",
    "DELETE FROM history WHERE session = ?",
    "DELETE FROM collected_parts WHERE session = ?",
};
static_assert(std::size(kSql) == kSqlCount);

absl::Status Refused(absl::string_view message) {
  return MakeError(absl::StatusCode::kUnavailable, ErrorReason::kStoreRefused, message);
}

}  // namespace

absl::StatusOr<std::unique_ptr<RowWriter>> RowWriter::Create(SqliteConnection& connection) {
  std::unique_ptr<RowWriter> writer(new RowWriter(connection));
  for (const char* sql : kSql) {
    auto statement = SqliteStatement::Prepare(connection, sql);
    if (!statement.ok()) return statement.status();
    writer->statements_.push_back(*std::move(statement));
  }
  return writer;
}

absl::Status RowWriter::Begin() {
  const int code = Execute(kBegin);
  return code == SQLITE_OK ? absl::OkStatus() : Error(code);
}

absl::Status RowWriter::Commit() {
  const int code = Execute(kCommit);
  if (code == SQLITE_OK) return absl::OkStatus();
  absl::Status error = Error(code);
  Rollback();
  return error;
}

bool RowWriter::InTransaction() const { return sqlite3_get_autocommit(connection_.get()) == 0; }

absl::Status RowWriter::ClaimSessions() {
  absl::Status status = Begin();
  if (!status.ok()) return status;
  if (const int code = Execute(kClaim); code != SQLITE_OK) {
    status = Error(code);
    Rollback();
    return status;
  }
  return Commit();
}

absl::Status RowWriter::Error(int code) { return connection_.Error(code); }

void RowWriter::Rollback() {
  // Some errors end the transaction by themselves.
  if (InTransaction()) Execute(kRollback);
}

absl::Status RowWriter::Apply(const StoreWrite& write) {
  absl::Status status = absl::OkStatus();
  if (const int code = Execute(kSavepoint); code != SQLITE_OK) status = Error(code);
  for (size_t i = 0; status.ok() && i < write.sessions.size(); ++i) status = ApplySession(write.sessions[i]);
  if (status.ok() && write.server_request.has_value()) {
    const StoredRequest& request = *write.server_request;
    const int code = SqliteStatement::Run(at(kPutServerRequest))
                         .Integer(request.slot)
                         .Integer(request.sequence)
                         .Text(request.request_id)
                         .Blob(request.record)
                         .Finish();
    if (code != SQLITE_OK) status = Error(code);
  }
  if (status.ok()) {
    const int code = Execute(kRelease);
    if (code == SQLITE_OK) return absl::OkStatus();
    status = Error(code);
  }
  if (!InTransaction()) return status;
  // Full disk and the like concern all that the transaction holds.
  const bool alone = Execute(kRollbackTo) == SQLITE_OK && Execute(kRelease) == SQLITE_OK;
  if (!alone) Rollback();
  // A damaged page is a reason to refuse a write, not one to say that what it would change is lost.
  return absl::IsDataLoss(status) ? Refused(status.message()) : status;
}

absl::Status RowWriter::ApplySession(const SessionWrite& write) {
  const auto session = write.kind == SessionWrite::Kind::kCreate ? CreateSession(write) : ChangeSession(write);
  if (!session.ok()) return session.status();
  const int code = write.kind == SessionWrite::Kind::kDelete ? DeleteRows(*session) : ApplyRows(*session, write);
  return code == SQLITE_OK ? absl::OkStatus() : Error(code);
}

absl::StatusOr<int64_t> RowWriter::CreateSession(const SessionWrite& write) {
  const int code = SqliteStatement::Run(at(kInsertSession))
                       .Text(write.name)
                       .Text(write.uid)
                       .Integer(write.epoch)
                       .Integer(write.sequence)
                       .Blob(write.head)
                       .Finish();
  if (code == SQLITE_CONSTRAINT_UNIQUE) {
    return Refused(absl::StrCat(connection_.file(), ": holds a session \"", write.name, "\" or one of uid ", write.uid,
                                " already: restart the server, which then serves what the file holds"));
  }
  if (code != SQLITE_OK) return Error(code);
  return sqlite3_last_insert_rowid(connection_.get());
}

absl::StatusOr<int64_t> RowWriter::FindToChange(const SessionWrite& write) {
  SqliteStatement::Run run(at(kFindSession));
  const int code = run.Text(write.uid).Step();
  if (code == SQLITE_DONE) {
    return Refused(absl::StrCat(connection_.file(), ": holds no session of uid ", write.uid,
                                ": it was deleted, or its creation was refused"));
  }
  if (code != SQLITE_ROW) return Error(code);
  if (const int64_t epoch = run.IntegerAt(1); epoch != write.epoch) {
    return MakeError(absl::StatusCode::kFailedPrecondition, ErrorReason::kNotOwner,
                     absl::StrCat(connection_.file(), ": the session of uid ", write.uid, " has owner epoch ", epoch,
                                  ", the write has ", write.epoch, ": ask the server that owns it now"));
  }
  if (const int64_t newest = run.IntegerAt(2); newest != write.sequence - 1) {
    return Refused(absl::StrCat(connection_.file(), ": the newest write of the session of uid ", write.uid, " is ",
                                newest, ", so write ", write.sequence,
                                " does not follow: the one before it was refused"));
  }
  return run.IntegerAt(0);
}

absl::StatusOr<int64_t> RowWriter::ChangeSession(const SessionWrite& write) {
  // Two statements: for one with RETURNING, SQLite builds a table in memory each time.
  const auto session = FindToChange(write);
  if (!session.ok()) return session;
  const bool deletes = write.kind == SessionWrite::Kind::kDelete;
  SqliteStatement::Run run(at(deletes ? kDeleteSession : kUpdateSession));
  if (!deletes) run.Blob(write.head).Integer(write.sequence);
  const int code = run.Integer(*session).Finish();
  if (code != SQLITE_OK) return Error(code);
  return session;
}

int RowWriter::DeleteRows(int64_t session) {
  int code = SQLITE_OK;
  for (const int sql :
       {kDeleteCurrentOf, kDeleteKeptOf, kDeleteRequestsOf, kDeleteSnapshotsOf, kDeleteHistoryOf, kDeleteCollectedOf}) {
    if (code == SQLITE_OK) code = SqliteStatement::Run(at(sql)).Integer(session).Finish();
  }
  return code;
}

int RowWriter::ApplyRows(int64_t session, const SessionWrite& write) {
  int code = SQLITE_OK;
  const auto put = [&](int sql, const StoredVector& vector) {
    SqliteStatement::Run run(at(sql));
    run.Integer(session).Integer(static_cast<int64_t>(vector.kind));
    if (sql != kDropCurrent) run.Integer(vector.version).Blob(vector.data);
    code = run.Finish();
  };
  for (size_t i = 0; code == SQLITE_OK && i < write.current.size(); ++i) {
    put(write.current[i].data.empty() ? kDropCurrent : kPutCurrent, write.current[i]);
  }
  for (size_t i = 0; code == SQLITE_OK && i < write.kept.size(); ++i) put(kAddKept, write.kept[i]);
  for (size_t i = 0; code == SQLITE_OK && i < write.dropped.size(); ++i) {
    const auto& [kind, version] = write.dropped[i];
    SqliteStatement::Run run(at(kDropKept));
    code = run.Integer(session).Integer(static_cast<int64_t>(kind)).Integer(version).Finish();
  }
  if (code == SQLITE_OK && write.request.has_value()) code = PutRequest(session, *write.request);
  if (code == SQLITE_OK && !write.deleted_snapshot.empty()) {
    SqliteStatement::Run run(at(kDropSnapshot));
    code = run.Integer(session).Text(write.deleted_snapshot).Finish();
  }
  if (code == SQLITE_OK && write.snapshot.has_value()) {
    SqliteStatement::Run run(at(kAddSnapshot));
    code = run.Integer(session).Text(write.snapshot->name).Blob(write.snapshot->record).Finish();
  }
  for (size_t i = 0; code == SQLITE_OK && i < write.history.size(); ++i) {
    SqliteStatement::Run run(at(kPutPoint));
    code = run.Integer(session).Integer(write.history[i].slot).Blob(write.history[i].record).Finish();
  }
  for (size_t i = 0; code == SQLITE_OK && i < write.dropped_collections.size(); ++i) {
    SqliteStatement::Run run(at(kDropCollection));
    code = run.Integer(session).Text(write.dropped_collections[i]).Finish();
  }
  for (size_t i = 0; code == SQLITE_OK && i < write.collected.size(); ++i) {
    const StoredCollectionRow& row = write.collected[i];
    SqliteStatement::Run run(at(kAddCollected));
    run.Integer(session).Text(row.collection).Text(row.part).Integer(row.size_bytes);
    code = run.Blob(row.record).Finish();
  }
  return code;
}

int RowWriter::PutRequest(int64_t session, const StoredRequest& request) {
  SqliteStatement::Run run(at(kPutRequest));
  return run.Integer(session)
      .Integer(request.slot)
      .Integer(request.sequence)
      .Text(request.request_id)
      .Blob(request.record)
      .Finish();
}

}  // namespace normserve
