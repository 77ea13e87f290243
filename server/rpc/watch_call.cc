#include "server/rpc/watch_call.h"

#include "server/rpc/grpc_status.h"
#include "server/rpc/unary_call.h"

namespace normserve {

void WatchCall::End(const absl::Status& status) {
  if (has_ended_) return;
  has_ended_ = true;
  ReportCall(observer_,
             {.method = "WatchStats",
              .session = session,
              .peer = context_.peer(),
              .start = start_,
              .request_bytes = request_bytes_,
              .reply_bytes = reply_bytes_},
             status);
  Finish(ToGrpcStatus(status));
}

}  // namespace normserve
