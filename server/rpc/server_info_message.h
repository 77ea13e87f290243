// GetServerInfo's reply.
#pragma once

#include "normserve/v1/batch_norm_service.pb.h"
#include "server/rpc/server_description.h"
#include "server/session/session_registry.h"

namespace normserve {

void WriteServerInfo(const ServerDescription& description, const SessionRegistry& registry, v1::ServerInfo& message);

}  // namespace normserve
