// The moments of a batch that is observed, not trained with: an engine takes them, and nothing else comes of it.
#pragma once

#include <memory>
#include <optional>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "kernels/engine.h"
#include "server/session/received_tensor.h"
#include "server/session/session.h"

namespace normserve {

// Calls `taken` once, on the caller's thread or one of the engine's, with the moments of `batch`, field "batch" of a
// request about `session`; nothing for an empty batch. The batch's bytes are read until then.
//
// INVALID_ARGUMENT (SHAPE_MISMATCH): it does not fit the session; (NON_FINITE): it holds NaN or infinity, or its
// moments overflow float32. And what the engine says.
void TakeMoments(Engine& engine, const std::shared_ptr<Session>& session, ReceivedTensor batch,
                 absl::AnyInvocable<void(absl::StatusOr<std::optional<Moments>>) &&> taken);

// OK if `moments`, an engine's, of `batch` are finite in float32. INVALID_ARGUMENT (NON_FINITE) that names `field`,
// channel and position; `right` says what was not done and what to do.
absl::Status CheckFiniteMoments(absl::string_view field, const ReceivedTensor& batch, const BatchShape& shape,
                                const Moments& moments, absl::string_view right);

}  // namespace normserve
