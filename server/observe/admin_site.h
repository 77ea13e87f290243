// What the admin port answers.
#pragma once

#include "server/observe/http_server.h"
#include "server/observe/metrics_page.h"
#include "server/rpc/call_gate.h"

namespace normserve {

// Read-only. Thread-safe.
class AdminSite {
 public:
  // `sources` outlive this.
  AdminSite(const MetricsPage::Sources& sources, int64_t max_session_gauges)
      : gate_(sources.gate), metrics_(sources, max_session_gauges) {}

  // /healthz    200 "ok", or 503 "draining" once the server takes no new calls
  // /metrics    Prometheus' text
  // 404 for any other path.
  HttpReply Answer(const HttpRequest& request);

 private:
  const CallGate& gate_;
  MetricsPage metrics_;
};

}  // namespace normserve
