// SessionConfig and back: which default counts where nothing is set.
#pragma once

#include "absl/status/statusor.h"
#include "normserve/v1/session.pb.h"
#include "server/session/session_config.h"

namespace normserve {

// INVALID_ARGUMENT: an enum value that this server does not know. Ranges are checked where the session is made.
absl::StatusOr<SessionConfig> ReadConfig(const v1::SessionConfig& message);

// Every field, defaults too.
void WriteConfig(const SessionConfig& config, v1::SessionConfig& message);

}  // namespace normserve
