// The tables of a store's file, and how a file of an older version becomes one of this.
#pragma once

#include "absl/status/status.h"
#include "server/store/sqlite_connection.h"

namespace normserve {

// In the file's header (PRAGMA application_id): "NrmS". Tells a store from other SQLite files.
inline constexpr int32_t kApplicationId = 0x4e726d53;

// The version this server writes (PRAGMA user_version of the file).
int SchemaVersion();

// The file's schema version, if it is a store that this server can read, after migration where it is older.
// Errors: FAILED_PRECONDITION: another program's file, or a newer server's. DATA_LOSS: damaged.
absl::StatusOr<int> ReadSchemaVersion(SqliteConnection& connection);

// Brings a file of version `from` (0: an empty one) to SchemaVersion() in one transaction.
absl::Status MigrateSchema(SqliteConnection& connection, int from);

}  // namespace normserve
