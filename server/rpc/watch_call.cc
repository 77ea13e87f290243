#include "server/rpc/watch_call.h"

#include "server/rpc/grpc_status.h"

namespace normserve {

void WatchCall::End(const absl::Status& status) {
  if (has_ended_) return;
  has_ended_ = true;
  Finish(ToGrpcStatus(status));
}

}  // namespace normserve
