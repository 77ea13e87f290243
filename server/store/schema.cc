#include "server/store/schema.h"

#include <array>

#include "absl/strings/str_cat.h"
#include "kernels/error_reason.h"

namespace normserve {
namespace {

// Step i makes version i + 1 of version i. A step that was ever released is never changed.
// README.md says what the columns mean.
constexpr std::array<const char*, 6> kSteps = {
    R"sql(
CREATE TABLE sessions(
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  uid TEXT NOT NULL UNIQUE,
  epoch INTEGER NOT NULL,
  sequence INTEGER NOT NULL,
  record BLOB NOT NULL
) STRICT;
CREATE TABLE current_vectors(
  session INTEGER NOT NULL,
  kind INTEGER NOT NULL,
  version INTEGER NOT NULL,
  data BLOB NOT NULL,
  PRIMARY KEY(session, kind)
) STRICT;
CREATE TABLE kept_vectors(
  session INTEGER NOT NULL,
  kind INTEGER NOT NULL,
  version INTEGER NOT NULL,
  data BLOB NOT NULL,
  PRIMARY KEY(session, kind, version)
) STRICT;
CREATE TABLE requests(
  session INTEGER NOT NULL,
  slot INTEGER NOT NULL,
  sequence INTEGER NOT NULL,
  request_id TEXT NOT NULL,
  record BLOB NOT NULL,
  PRIMARY KEY(session, slot)
) STRICT;
CREATE TABLE server_requests(
  slot INTEGER PRIMARY KEY,
  sequence INTEGER NOT NULL,
  request_id TEXT NOT NULL,
  record BLOB NOT NULL
) STRICT;
)sql",
    R"sql(
CREATE TABLE snapshots(
  session INTEGER NOT NULL,
  name TEXT NOT NULL,
  record BLOB NOT NULL,
  PRIMARY KEY(session, name)
) STRICT;
CREATE TABLE requests_of_sessions(
  session INTEGER NOT NULL,
  slot INTEGER NOT NULL,
  sequence INTEGER NOT NULL,
  request_id TEXT NOT NULL,
  record BLOB NOT NULL,
  PRIMARY KEY(session, slot)
) STRICT, WITHOUT ROWID;
INSERT INTO requests_of_sessions SELECT session, slot, sequence, request_id, record FROM requests ORDER BY session, slot;
DROP TABLE requests;
ALTER TABLE requests_of_sessions RENAME TO requests;
)sql",
    // The same tables; records of version 2 may be in them, which older servers would take for damaged.
    "",
    // And heads of version 3. Rows may be pages long, so the primary key is an index beside them.
    R"sql(
CREATE TABLE collected_parts(
  session INTEGER NOT NULL,
  collection TEXT NOT NULL,
  part TEXT NOT NULL,
  size_bytes INTEGER NOT NULL,
  record BLOB NOT NULL,
  PRIMARY KEY(session, collection, part)
) STRICT;
)sql",
    // And heads and snapshots of version 4.
    R"sql(
CREATE TABLE history(
  session INTEGER NOT NULL,
  slot INTEGER NOT NULL,
  record BLOB NOT NULL,
  PRIMARY KEY(session, slot)
) STRICT;
)sql",
    // The same tables; heads of version 6 and vectors of kind 5 may be in them.
    "",
};

absl::Status WrongFile(absl::string_view message) {
  return MakeError(absl::StatusCode::kFailedPrecondition, ErrorReason::kStoreRefused, message);
}

}  // namespace

int SchemaVersion() { return kSteps.size(); }

absl::StatusOr<int> ReadSchemaVersion(SqliteConnection& connection) {
  const auto application = connection.QueryInteger("PRAGMA application_id");
  if (!application.ok()) return application.status();
  const auto version = connection.QueryInteger("PRAGMA user_version");
  if (!version.ok()) return version.status();
  const auto tables = connection.QueryInteger("SELECT count(*) FROM sqlite_schema");
  if (!tables.ok()) return tables.status();
  if (*application == 0 && *version == 0 && *tables == 0) return 0;
  if (*application == kApplicationId && *version < 1) {
    return WrongFile(absl::StrCat(connection.file(), ": has schema version ", *version,
                                  ", which no server writes: it is damaged; bring its directory back from a copy"));
  }
  if (*application != kApplicationId) {
    return WrongFile(absl::StrCat(connection.file(), ": is another program's SQLite file (application id ",
                                  *application, "): move it away, or name another directory"));
  }
  if (*version > SchemaVersion()) {
    return WrongFile(absl::StrCat(connection.file(), ": has schema version ", *version,
                                  ", this server knows versions up to ", SchemaVersion(),
                                  ": start the newer server that wrote it, or name another directory"));
  }
  return static_cast<int>(*version);
}

absl::Status MigrateSchema(SqliteConnection& connection, int from) {
  int code = connection.Execute("BEGIN IMMEDIATE");
  for (int step = from; code == SQLITE_OK && step < SchemaVersion(); ++step) code = connection.Execute(kSteps[step]);
  if (code == SQLITE_OK) code = connection.Execute(absl::StrCat("PRAGMA application_id = ", kApplicationId));
  if (code == SQLITE_OK) code = connection.Execute(absl::StrCat("PRAGMA user_version = ", SchemaVersion()));
  if (code == SQLITE_OK) code = connection.Execute("COMMIT");
  if (code == SQLITE_OK) return absl::OkStatus();
  absl::Status error = connection.Error(code);
  if (!sqlite3_get_autocommit(connection.get())) connection.Execute("ROLLBACK");
  return error;
}

}  // namespace normserve
