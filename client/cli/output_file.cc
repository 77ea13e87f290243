#include "client/cli/output_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"

namespace normserve::cli {
namespace {

// errno, as a status that names `path`.
absl::Status FileError(const std::string& path, absl::string_view what) {
  return absl::ErrnoToStatus(errno, absl::StrCat(path, ": ", what));
}

}  // namespace

absl::StatusOr<OutputFile> OutputFile::Open(const std::string& path) {
  struct stat found = {};
  const bool there = lstat(path.c_str(), &found) == 0;
  // A file that may not be written is not replaced either, though its folder would allow that.
  if (there && S_ISREG(found.st_mode) && access(path.c_str(), W_OK) != 0) {
    return FileError(path, "cannot be opened for writing");
  }
  if (!there || S_ISREG(found.st_mode)) {
    const std::string beside = absl::StrCat(path, ".", getpid(), ".part");
    const int descriptor = open(beside.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (descriptor >= 0) {
      OutputFile file(path, beside, descriptor);
      if (there && fchmod(descriptor, found.st_mode & 07777) != 0) return FileError(path, "cannot be replaced");
      return file;
    }
  }
  const int descriptor = open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
  if (descriptor < 0) return FileError(path, "cannot be opened for writing");
  return OutputFile(path, "", descriptor);
}

OutputFile::OutputFile(std::string path, std::string beside, int descriptor)
    : path_(std::move(path)), beside_(std::move(beside)), descriptor_(descriptor) {}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : path_(other.path_),
      beside_(std::exchange(other.beside_, "")),
      descriptor_(std::exchange(other.descriptor_, -1)) {}

OutputFile::~OutputFile() {
  if (descriptor_ >= 0) close(descriptor_);
  if (!beside_.empty()) unlink(beside_.c_str());
}

absl::Status OutputFile::Write(absl::string_view bytes) {
  struct stat opened = {};
  // What an older, longer content leaves behind the new one; devices and pipes have no length.
  if (fstat(descriptor_, &opened) == 0 && S_ISREG(opened.st_mode) && ftruncate(descriptor_, 0) != 0) {
    return FileError(path_, "cannot be written");
  }
  while (!bytes.empty()) {
    const ssize_t written = write(descriptor_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return FileError(path_, "cannot be written");
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  if (close(std::exchange(descriptor_, -1)) != 0) return FileError(path_, "cannot be written");
  if (!beside_.empty() && std::rename(beside_.c_str(), path_.c_str()) != 0) {
    return FileError(path_, "cannot be replaced");
  }
  beside_.clear();
  return absl::OkStatus();
}

}  // namespace normserve::cli
