#include "server/store/row_reader.h"

#include "absl/strings/str_cat.h"
#include "kernels/error_reason.h"

namespace normserve {
namespace {

enum Sql {
  kListSessions,
  kListServerRequests,
  kFind,
  kCurrent,
  kKept,
  kRequests,
  kSnapshots,
  kHistory,
  kCollected,
  kSqlCount
};

constexpr const char* kSql[] = {
    "SELECT name, uid, epoch, sequence, record, id,"
    " (SELECT count(*) FROM snapshots WHERE session = id),"
    " (SELECT coalesce(sum(size_bytes), 0) FROM collected_parts WHERE session = id) FROM sessions ORDER BY name",
    "SELECT slot, sequence, request_id, record FROM server_requests ORDER BY sequence",
    "SELECT name, uid, epoch, sequence, record, id,"
    " (SELECT count(*) FROM snapshots WHERE session = id),"
    " (SELECT coalesce(sum(size_bytes), 0) FROM collected_parts WHERE session = id) FROM sessions WHERE uid = ?",
    "SELECT kind, version, data FROM current_vectors WHERE session = ? ORDER BY kind",
    "SELECT kind, version, data FROM kept_vectors WHERE session = ? ORDER BY kind, version",
    "SELECT slot, sequence, request_id, record FROM requests WHERE session = ? ORDER BY sequence",
    "SELECT name, record FROM snapshots WHERE session = ? ORDER BY name",
    "SELECT slot, record FROM history WHERE session = ? ORDER BY slot",
    "SELECT collection, part, size_bytes, record FROM collected_parts WHERE session = ? ORDER BY collection, part",
};
static_assert(std::size(kSql) == kSqlCount);

StoredHead HeadOf(const SqliteStatement::Run& run) {
  return {.name = run.BytesAt(0),
          .uid = run.BytesAt(1),
          .epoch = run.IntegerAt(2),
          .sequence = run.IntegerAt(3),
          .record = run.BytesAt(4),
          .num_snapshots = run.IntegerAt(6),
          .collection_bytes = run.IntegerAt(7)};
}

}  // namespace

absl::StatusOr<std::unique_ptr<RowReader>> RowReader::Create(std::unique_ptr<SqliteConnection> connection) {
  std::unique_ptr<RowReader> reader(new RowReader(std::move(connection)));
  for (const char* sql : kSql) {
    auto statement = SqliteStatement::Prepare(*reader->connection_, sql);
    if (!statement.ok()) return statement.status();
    reader->statements_.push_back(*std::move(statement));
  }
  return reader;
}

absl::StatusOr<std::vector<StoredHead>> RowReader::ListSessions() {
  std::vector<StoredHead> heads;
  SqliteStatement::Run run(at(kListSessions));
  int code = SQLITE_ROW;
  while ((code = run.Step()) == SQLITE_ROW) heads.push_back(HeadOf(run));
  if (code != SQLITE_DONE) return connection_->Error(code);
  return heads;
}

absl::StatusOr<std::vector<StoredRequest>> RowReader::ListServerRequests() {
  std::vector<StoredRequest> requests;
  SqliteStatement::Run run(at(kListServerRequests));
  const absl::Status status = LoadRequests(run, requests);
  if (!status.ok()) return status;
  return requests;
}

absl::StatusOr<StoredSession> RowReader::Load(absl::string_view uid) {
  return InTransaction<StoredSession>([&](StoredSession& session) {
    const auto id = FindSession(uid, session.head);
    if (!id.ok()) return id.status();
    absl::Status status = LoadVectors(kCurrent, *id, session.current);
    if (status.ok()) status = LoadSnapshots(*id, session.snapshots);
    if (status.ok()) status = LoadHistory(*id, session.history);
    if (status.ok()) status = LoadCollected(*id, session.collected);
    return status;
  });
}

absl::StatusOr<StoredMemory> RowReader::LoadMemory(absl::string_view uid) {
  return InTransaction<StoredMemory>([&](StoredMemory& memory) {
    StoredHead head;
    const auto id = FindSession(uid, head);
    if (!id.ok()) return id.status();
    if (absl::Status status = LoadVectors(kKept, *id, memory.kept); !status.ok()) return status;
    SqliteStatement::Run run(at(kRequests));
    return LoadRequests(run.Integer(*id), memory.requests);
  });
}

template <typename Loaded>
absl::StatusOr<Loaded> RowReader::InTransaction(absl::FunctionRef<absl::Status(Loaded&)> load) {
  if (const int code = connection_->Execute("BEGIN"); code != SQLITE_OK) return connection_->Error(code);
  Loaded loaded;
  const absl::Status status = load(loaded);
  if (!sqlite3_get_autocommit(connection_->get())) connection_->Execute("ROLLBACK");
  if (!status.ok()) return status;
  return loaded;
}

absl::StatusOr<int64_t> RowReader::FindSession(absl::string_view uid, StoredHead& head) {
  SqliteStatement::Run run(at(kFind));
  const int code = run.Text(uid).Step();
  if (code == SQLITE_DONE) {
    return MakeError(absl::StatusCode::kNotFound, ErrorReason::kSessionNotFound,
                     absl::StrCat(connection_->file(), ": holds no session of uid ", uid));
  }
  if (code != SQLITE_ROW) return connection_->Error(code);
  head = HeadOf(run);
  return run.IntegerAt(5);
}

absl::Status RowReader::LoadVectors(int sql, int64_t session, std::vector<StoredVector>& vectors) {
  SqliteStatement::Run run(at(sql));
  run.Integer(session);
  int code = SQLITE_ROW;
  while ((code = run.Step()) == SQLITE_ROW) {
    vectors.push_back(
        {.kind = static_cast<VectorKind>(run.IntegerAt(0)), .version = run.IntegerAt(1), .data = run.BytesAt(2)});
  }
  return code == SQLITE_DONE ? absl::OkStatus() : connection_->Error(code);
}

absl::Status RowReader::LoadRequests(SqliteStatement::Run& run, std::vector<StoredRequest>& requests) {
  int code = SQLITE_ROW;
  while ((code = run.Step()) == SQLITE_ROW) {
    requests.push_back({.slot = run.IntegerAt(0),
                        .sequence = run.IntegerAt(1),
                        .request_id = run.BytesAt(2),
                        .record = run.BytesAt(3)});
  }
  return code == SQLITE_DONE ? absl::OkStatus() : connection_->Error(code);
}

absl::Status RowReader::LoadCollected(int64_t session, std::vector<StoredCollectionRow>& collected) {
  SqliteStatement::Run run(at(kCollected));
  run.Integer(session);
  int code = SQLITE_ROW;
  while ((code = run.Step()) == SQLITE_ROW) {
    collected.push_back({.collection = run.BytesAt(0),
                         .part = run.BytesAt(1),
                         .size_bytes = run.IntegerAt(2),
                         .record = run.BytesAt(3)});
  }
  return code == SQLITE_DONE ? absl::OkStatus() : connection_->Error(code);
}

absl::Status RowReader::LoadSnapshots(int64_t session, std::vector<StoredSnapshot>& snapshots) {
  SqliteStatement::Run run(at(kSnapshots));
  run.Integer(session);
  int code = SQLITE_ROW;
  while ((code = run.Step()) == SQLITE_ROW) snapshots.push_back({.name = run.BytesAt(0), .record = run.BytesAt(1)});
  return code == SQLITE_DONE ? absl::OkStatus() : connection_->Error(code);
}

absl::Status RowReader::LoadHistory(int64_t session, std::vector<StoredPoint>& history) {
  SqliteStatement::Run run(at(kHistory));
  run.Integer(session);
  int code = SQLITE_ROW;
  while ((code = run.Step()) == SQLITE_ROW) history.push_back({.slot = run.IntegerAt(0), .record = run.BytesAt(1)});
  return code == SQLITE_DONE ? absl::OkStatus() : connection_->Error(code);
}

}  // namespace normserve
