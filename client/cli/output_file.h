// A file that a command writes, made sure of before the command does what cannot be undone.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace normserve::cli {

// Opened first, written once, at the end. A regular file keeps its old content until the new one is complete: that goes
// to a file beside it, which takes its name at the end, and is removed if there is no end, also by a signal where the
// file system has files without a name. Where no file can be made beside it, and for devices, pipes and symbolic links,
// the bytes are written in place.
class OutputFile {
 public:
  // Changes nothing that is at `path`. NOT_FOUND: its folder is not there; PERMISSION_DENIED: it may not be written;
  // else what the system says, as a status.
  static absl::StatusOr<OutputFile> Open(const std::string& path);

  OutputFile(OutputFile&& other) noexcept;
  OutputFile& operator=(OutputFile&&) = delete;
  ~OutputFile();

  // Makes `bytes` the file's content and closes it; call it once. What the system says, such as RESOURCE_EXHAUSTED for
  // a full disk, as a status.
  absl::Status Write(absl::string_view bytes);

 private:
  OutputFile(std::string path, std::string beside, int descriptor);

  const std::string path_;
  std::string beside_;    // the file that takes path_'s name; empty: written in place, or done
  bool is_named_ = true;  // whether that file has its name yet
  int descriptor_;        // -1: closed
};

}  // namespace normserve::cli
