// Diagnose's messages to the domain's types and back.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "normserve/v1/batch_norm_service.pb.h"
#include "server/session/session_diagnosis.h"

namespace normserve {

// All but the batch. INVALID_ARGUMENT: a layer that is there twice.
absl::StatusOr<DiagnoseRequest> ReadDiagnoseRequest(const v1::DiagnoseRequest& message);

void WriteDiagnosis(const SessionDiagnosis& diagnosis, bool with_channels, v1::Diagnosis& message);

}  // namespace normserve
