#include "normserve/checkpoint_message.h"

#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "normserve/messages.h"

namespace normserve::client {
namespace {

constexpr size_t kPieceBytes = size_t{1} << 19;

}  // namespace

v1::ImportBegin ToMessage(const ImportStateRequest& request) {
  v1::ImportBegin message;
  message.set_name(request.name);
  message.set_request_id(request.request_id);
  const ImportOptions& options = request.options;
  CopyTo(options.config, *message.mutable_config());
  message.set_mode(static_cast<v1::Mode>(options.mode));
  message.set_prefix(options.prefix);
  message.set_existing(static_cast<v1::ExistingSession>(options.existing));
  message.set_kept_by(static_cast<v1::Convention>(options.kept_by));
  message.set_values_per_channel(options.values_per_channel);
  return message;
}

v1::ExportStateRequest ToMessage(const ExportStateRequest& request) {
  v1::ExportStateRequest message;
  message.set_name(request.name);
  message.set_prefix(request.options.prefix);
  message.set_convention(static_cast<v1::Convention>(request.options.convention));
  message.set_folded(request.options.folded);
  message.set_values_per_channel(request.options.values_per_channel);
  return message;
}

ImportResult FromMessage(const v1::ImportStateReply& message) {
  ImportResult result{.num_skipped = message.num_skipped(),
                      .largest_parameter_rounding = message.largest_parameter_rounding()};
  for (const v1::ImportedSession& session : message.sessions()) {
    const bool is_known = v1::ImportAction_IsValid(session.action());
    result.layers.push_back(
        {.name = session.name(),
         .uid = session.uid(),
         .generation = session.generation(),
         .num_features = session.num_features(),
         .num_batches_tracked = session.num_batches_tracked(),
         .action = is_known ? static_cast<ImportAction>(session.action()) : ImportAction::kUnspecified});
  }
  for (const v1::SkippedTensor& tensor : message.skipped()) result.skipped.push_back({tensor.name(), tensor.reason()});
  return result;
}

Export FromMessage(const v1::ExportSummary& message) {
  Export result{.largest_relative_error = message.largest_relative_error()};
  for (const v1::ExportedLayer& layer : message.layers()) {
    result.layers.push_back({.name = layer.name(),
                             .uid = layer.uid(),
                             .generation = layer.generation(),
                             .path = layer.path(),
                             .num_features = layer.num_features(),
                             .epsilon = layer.epsilon(),
                             .largest_relative_error = layer.largest_relative_error(),
                             .folded_error_bound = layer.folded_error_bound()});
    if (layer.has_momentum()) result.layers.back().momentum = layer.momentum();
  }
  return result;
}

absl::StatusOr<CheckpointPieces> CheckpointPieces::Open(const ImportStateRequest& request) {
  CheckpointPieces pieces;
  pieces.bytes_ = request.bytes;
  pieces.size_bytes_ = request.bytes.size();
  if (request.path.empty()) return pieces;
  pieces.path_ = request.path;
  pieces.file_.reset(std::fopen(request.path.c_str(), "rb"));
  std::error_code error;
  if (pieces.file_ == nullptr) return absl::ErrnoToStatus(errno, absl::StrCat("cannot read ", request.path));
  pieces.size_bytes_ = std::filesystem::file_size(request.path, error);
  if (error) return absl::ErrnoToStatus(error.value(), absl::StrCat("cannot read ", request.path));
  return pieces;
}

absl::StatusOr<std::string> CheckpointPieces::Next() {
  if (file_ == nullptr) {
    const absl::string_view piece = bytes_.substr(0, kPieceBytes);
    bytes_.remove_prefix(piece.size());
    return std::string(piece);
  }
  std::string piece(kPieceBytes, '\0');
  piece.resize(std::fread(piece.data(), 1, piece.size(), file_.get()));
  if (std::ferror(file_.get()) != 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot read ", path_));
  return piece;
}

}  // namespace normserve::client
