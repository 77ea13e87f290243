// The journal that a crash left behind, read as bytes: SQLite's write-ahead log.
#pragma once

#include <sqlite3.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace normserve {

// How far a journal can be read. SQLite reads up to the first frame whose checksum is wrong and takes what follows for
// what an earlier use of the file left; but frames of this use carry its salts.
struct JournalExtent {
  bool has_header = false;    // false: nothing of it can be read
  int64_t sound_frames = 0;   // with the right checksum, from the beginning
  int64_t frames_behind = 0;  // of the same use, behind one that is damaged; without a header: all that there is
  bool is_whole() const { return frames_behind == 0; }
};

// One file, open through a VFS of SQLite's until this is gone. Used by one thread at a time.
class JournalFile {
 public:
  // `vfs` empty is the default one; `flags` beside those of an existing file. Errors: as SqliteError.
  static absl::StatusOr<JournalFile> Open(const std::string& path, const std::string& vfs, int flags = 0);

  // Format: https://www.sqlite.org/fileformat2.html, section 4.
  absl::StatusOr<JournalExtent> Measure();

  // Writes all of it once more, as it is, and syncs it.
  absl::Status Renew();

  // A copy beside it, in place of one that is there.
  absl::Status CopyTo(const std::string& path, const std::string& vfs);

 private:
  struct Closer {
    void operator()(std::max_align_t* memory) const;
  };

  JournalFile(std::string path, std::unique_ptr<std::max_align_t[], Closer> memory, sqlite3_int64 size_bytes)
      : path_(std::move(path)), memory_(std::move(memory)), size_bytes_(size_bytes) {}
  absl::Status WriteAllTo(JournalFile& to);
  sqlite3_file* file() const { return reinterpret_cast<sqlite3_file*>(memory_.get()); }

  std::string path_;
  std::unique_ptr<std::max_align_t[], Closer> memory_;  // the sqlite3_file, as long as the VFS wants it
  sqlite3_int64 size_bytes_ = 0;
};

}  // namespace normserve
