// The Connection over gRPC. Only programs that bring a channel of their own include this.
#pragma once

#include <memory>
#include <string>

#include "normserve/connection.h"

namespace grpc {
class Channel;
}

namespace normserve::client {

// A connection without encryption to `address`, such as "127.0.0.1:8001". Never null; connects when first used, and
// again when the server went away. Messages may be as long as the server allows.
std::shared_ptr<Connection> MakeGrpcConnection(const std::string& address);

// The same over `channel`, which must not be null: for credentials and channel arguments of the caller's own. Raise
// its GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, which is 4 MB otherwise.
std::shared_ptr<Connection> MakeGrpcConnection(std::shared_ptr<grpc::Channel> channel);

}  // namespace normserve::client
