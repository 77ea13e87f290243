// Checkpoints between the library's own types and the protocol's messages. Internal: not installed.
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "normserve/checkpoint.h"
#include "normserve/connection.h"
#include "normserve/v1/checkpoint.pb.h"

namespace normserve::client {

v1::ImportBegin ToMessage(const ImportStateRequest& request);
v1::ExportStateRequest ToMessage(const ExportStateRequest& request);
ImportResult FromMessage(const v1::ImportStateReply& message);
// Without the file.
Export FromMessage(const v1::ExportSummary& message);

// A checkpoint in pieces.
class CheckpointPieces {
 public:
  // Of `request.path`, or of `request.bytes`, which it outlives.
  static absl::StatusOr<CheckpointPieces> Open(const ImportStateRequest& request);

  int64_t size_bytes() const { return static_cast<int64_t>(size_bytes_); }

  // The next piece; empty at the end. What the system says, as a status.
  absl::StatusOr<std::string> Next();

 private:
  CheckpointPieces() = default;

  std::string path_;
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file_{nullptr, &std::fclose};  // null: bytes_
  absl::string_view bytes_;
  uint64_t size_bytes_ = 0;
};

}  // namespace normserve::client
