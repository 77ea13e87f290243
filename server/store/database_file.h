// The file of a store in its data directory, and how it is opened without doing it harm.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/store/sqlite_connection.h"

namespace normserve {

// Makes `directory` (mode 0700) if it is missing, and checks that it is one and that this user may write it and the
// store's files in it. Errors: FAILED_PRECONDITION, UNAVAILABLE (STORE_REFUSED); they name what is wrong.
absl::Status PrepareDirectory(const std::string& directory);

// Is told, in a sentence, what a user should know though all goes on. Empty: nobody is.
using Warn = std::function<void(const std::string& what)>;

// DIRECTORY/normserve.db.
class DatabaseFile {
 public:
  // `vfs` empty is SQLite's default one.
  DatabaseFile(const std::string& directory, const std::string& vfs);

  // False for an empty file too; true if nobody can tell.
  bool Exists() const { return HasFile(path_); }

  // FAILED_PRECONDITION (STORE_REFUSED): a journal is there without its file, whose rows it would lose.
  absl::Status CheckComplete() const;

  // A connection that reads, of a file that exists: it makes no other file, leaves a journal as it is, and needs no
  // space on the disk. While it is open, no other connection of this process can be. Errors: as ReadSchemaVersion.
  absl::StatusOr<std::unique_ptr<SqliteConnection>> OpenQuietly() const;

  // Writes a journal that was left behind once more, as it is, and syncs it. A sync that failed before may have left
  // bytes that can be read but are not on the disk, and that no later sync writes; what follows would stand on them.
  // One that is damaged, so that changes are lost, is copied and `warn` told.
  absl::Status RenewLog(const Warn& warn) const;

  // A connection that writes. Makes the file, and brings it to this server's schema version.
  absl::StatusOr<std::unique_ptr<SqliteConnection>> OpenToWrite() const;

  // Another connection, once OpenToWrite has made what it needs.
  absl::StatusOr<std::unique_ptr<SqliteConnection>> OpenAnother() const;

  const std::string& path() const { return path_; }

 private:
  bool HasFile(const std::string& path) const;

  const std::string path_;
  const std::string vfs_;
};

}  // namespace normserve
