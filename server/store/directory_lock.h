// One server a data directory: a lock file that names its owner.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace normserve {

// Holds DIRECTORY/normserve.lock until it is destroyed. The kernel lets go of it when the process ends, however it
// ends.
class DirectoryLock {
 public:
  // Errors: FAILED_PRECONDITION: another process holds it; the message names that process. UNAVAILABLE: the file
  // cannot be made or opened.
  static absl::StatusOr<std::unique_ptr<DirectoryLock>> Acquire(const std::string& directory);
  // Leaves the file behind, empty; if Announce was never called, as Acquire found it.
  ~DirectoryLock();
  DirectoryLock(const DirectoryLock&) = delete;
  DirectoryLock& operator=(const DirectoryLock&) = delete;

  // Writes this process's id into the file, for whom it refuses. A full disk is no error.
  void Announce();

 private:
  DirectoryLock(std::string file, int descriptor, bool made)
      : file_(std::move(file)), descriptor_(descriptor), made_(made) {}

  const std::string file_;
  const int descriptor_;
  const bool made_;
  bool announced_ = false;
};

}  // namespace normserve
