// The gRPC server around the service: listening, health, reflection, draining.
#pragma once

#include <grpcpp/server.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/rpc/batch_norm_service.h"
#include "server/rpc/call_gate.h"
#include "server/server_options.h"

namespace normserve {

class GrpcServer {
 public:
  // Serves `service` on the addresses in `options`; health says SERVING. UNAVAILABLE: an address cannot be bound.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Create(const ServerOptions& options,
                                                            std::unique_ptr<BatchNormServiceImpl> service,
                                                            std::shared_ptr<CallGate> gate);

  // Where it listens, port 0 replaced by the one chosen.
  const std::vector<std::string>& addresses() const { return addresses_; }

  // Ends serving: health says NOT_SERVING, new calls get UNAVAILABLE, calls in work have `timeout` to finish, then all
  // that is left (health watches, calls beyond their time) is cancelled. Returns when no call is left; false if some
  // were cancelled. Once.
  bool Drain(absl::Duration timeout);

 private:
  GrpcServer(std::unique_ptr<BatchNormServiceImpl> service, std::shared_ptr<CallGate> gate)
      : service_(std::move(service)), gate_(std::move(gate)) {}

  const std::unique_ptr<BatchNormServiceImpl> service_;
  const std::shared_ptr<CallGate> gate_;
  std::vector<std::string> addresses_;
  std::unique_ptr<grpc::Server> server_;  // goes before the service
};

}  // namespace normserve
