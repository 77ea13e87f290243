#include "client/cli/output_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdio>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"

namespace normserve::cli {
namespace {

// errno, as a status that names `path`.
absl::Status FileError(const std::string& path, absl::string_view what) {
  return absl::ErrnoToStatus(errno, absl::StrCat(path, ": ", what));
}

// A file in the folder of `path` that has no name yet, so that no end of the process leaves it behind; -1: the file
// system has no such, or it could not be given the name `beside`.
int OpenUnnamed(const std::string& path, const std::string& beside) {
  const auto of_beside = std::filesystem::path(beside);
  if (of_beside.filename().native().size() > NAME_MAX || access("/proc/self/fd", X_OK) != 0) return -1;
  const std::string folder = std::filesystem::path(path).parent_path().string();
  return open(folder.empty() ? "." : folder.c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, 0666);
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
    const int unnamed = OpenUnnamed(path, beside);
    const int descriptor = unnamed >= 0 ? unnamed : open(beside.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (descriptor >= 0) {
      OutputFile file(path, beside, descriptor);
      file.is_named_ = unnamed < 0;
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
      is_named_(other.is_named_),
      descriptor_(std::exchange(other.descriptor_, -1)) {}

OutputFile::~OutputFile() {
  if (descriptor_ >= 0) close(descriptor_);
  if (!beside_.empty() && is_named_) unlink(beside_.c_str());
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
  if (!beside_.empty() && !is_named_) {
    const std::string open_file = absl::StrCat("/proc/self/fd/", descriptor_);
    if (linkat(AT_FDCWD, open_file.c_str(), AT_FDCWD, beside_.c_str(), AT_SYMLINK_FOLLOW) != 0) {
      return FileError(path_, "cannot be written");
    }
    is_named_ = true;
  }
  if (close(std::exchange(descriptor_, -1)) != 0) return FileError(path_, "cannot be written");
  if (!beside_.empty() && std::rename(beside_.c_str(), path_.c_str()) != 0) {
    return FileError(path_, "cannot be replaced");
  }
  beside_.clear();
  return absl::OkStatus();
}

}  // namespace normserve::cli
