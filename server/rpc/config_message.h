// SessionConfig and back: which default counts where nothing is set.
#pragma once

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "normserve/v1/session.pb.h"
#include "server/session/session_config.h"

namespace normserve {

// INVALID_ARGUMENT: an enum value that this server does not know. Ranges are checked where the session is made.
absl::StatusOr<SessionConfig> ReadConfig(const v1::SessionConfig& message);

// Every field, defaults too.
void WriteConfig(const SessionConfig& config, v1::SessionConfig& message);

// Nothing if it is unset. INVALID_ARGUMENT as above.
absl::StatusOr<std::optional<Durability>> ReadDurability(int durability);

// Nothing if it is unset. INVALID_ARGUMENT as above, about `field`.
absl::StatusOr<std::optional<Convention>> ReadConvention(absl::string_view field, int convention);

// FAILED_PRECONDITION (CONVENTION_MISMATCH), naming the field: what `message` sets is not what session `name` has.
absl::Status CheckConfigIs(const v1::SessionConfig& message, const std::string& name, const SessionConfig& existing);

v1::Durability WriteDurability(Durability durability);

}  // namespace normserve
