// Messages around checkpoints to domain types and back.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "normserve/v1/checkpoint.pb.h"
#include "server/checkpoint/checkpoint_reader.h"
#include "server/checkpoint/checkpoint_writer.h"
#include "server/session/model_import.h"
#include "server/session/session.h"

namespace normserve {

// All but the layers. INVALID_ARGUMENT: a name that is not legal, a value that this server does not know, a field that
// an import does not have.
absl::StatusOr<ImportDraft> ReadImportBegin(const v1::ImportBegin& begin);

// Adds the file's layers, each under its session's name, in the order of those. INVALID_ARGUMENT: a layer that no name
// can be made for.
absl::Status AddLayers(Checkpoint checkpoint, ImportDraft& draft);

void WriteImported(const std::vector<ImportedSession>& sessions, const Checkpoint& read, v1::ImportStateReply& reply);

// A file that is asked for, and what the summary says of it.
struct Export {
  CheckpointWriter writer;
  v1::ExportSummary summary;
};

// Of `sessions` as `contents` (as many) has them. INVALID_ARGUMENT: prefix, format, convention. FAILED_PRECONDITION: as
// proto/normserve/v1/batch_norm_service.proto says, or two sessions that have the same path.
absl::StatusOr<Export> MakeExport(const v1::ExportStateRequest& request,
                                  const std::vector<std::shared_ptr<Session>>& sessions,
                                  const std::vector<SessionContent>& contents);

}  // namespace normserve
