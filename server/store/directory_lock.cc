#include "server/store/directory_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "kernels/error_reason.h"

namespace normserve {
namespace {

std::string HolderOf(int descriptor) {
  char text[32] = {};
  const ssize_t size_bytes = pread(descriptor, text, sizeof(text) - 1, 0);
  const absl::string_view pid = absl::StripAsciiWhitespace(absl::string_view(text, size_bytes > 0 ? size_bytes : 0));
  return pid.empty() ? "another process" : absl::StrCat("process ", pid);
}

// False if `file` is not (any longer) what `descriptor` has open: its holder removed it.
bool IsStill(const std::string& file, int descriptor) {
  struct stat opened = {};
  struct stat named = {};
  return fstat(descriptor, &opened) == 0 && stat(file.c_str(), &named) == 0 && opened.st_ino == named.st_ino &&
         opened.st_dev == named.st_dev;
}

}  // namespace

absl::StatusOr<std::unique_ptr<DirectoryLock>> DirectoryLock::Acquire(const std::string& directory) {
  const std::string file = absl::StrCat(directory, "/normserve.lock");
  for (;;) {
    bool made = true;
    int descriptor = open(file.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (descriptor < 0 && errno == EEXIST) {
      made = false;
      descriptor = open(file.c_str(), O_RDWR | O_CLOEXEC);
      if (descriptor < 0 && errno == ENOENT) continue;
    }
    if (descriptor < 0) {
      return MakeError(
          absl::StatusCode::kUnavailable, ErrorReason::kStoreRefused,
          absl::StrCat(file, ": ", std::strerror(errno), ": let this user write the directory and what is in it"));
    }
    if (flock(descriptor, LOCK_EX | LOCK_NB) != 0) {
      const std::string holder = HolderOf(descriptor);
      close(descriptor);
      return MakeError(absl::StatusCode::kFailedPrecondition, ErrorReason::kStoreRefused,
                       absl::StrCat(file, ": ", holder, " serves this directory: stop it, or name another directory"));
    }
    if (IsStill(file, descriptor)) {
      return std::unique_ptr<DirectoryLock>(new DirectoryLock(file, descriptor, made));
    }
    close(descriptor);
  }
}

DirectoryLock::~DirectoryLock() {
  if (announced_) {
    (void)!ftruncate(descriptor_, 0);
  } else if (made_) {
    unlink(file_.c_str());
  }
  close(descriptor_);
}

void DirectoryLock::Announce() {
  announced_ = true;
  const std::string pid = absl::StrCat(getpid(), "\n");
  (void)!ftruncate(descriptor_, 0);
  (void)!pwrite(descriptor_, pid.data(), pid.size(), 0);
}

}  // namespace normserve
