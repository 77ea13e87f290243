// What the admin port answers.
#pragma once

#include "server/observe/http_server.h"
#include "server/observe/metrics_page.h"

namespace normserve {

// Read-only. Thread-safe.
class AdminSite {
 public:
  struct Sources {
    const CallMetrics& calls;
    SessionRegistry& registry;
    const CallGate& gate;
    const SavedForwardCache& saved_forwards;
    const ServerDescription& server;
  };
  // `sources` outlive this.
  AdminSite(const Sources& sources, int64_t max_session_gauges);

  // /                         the web page, and beside it /page.css, /page.js, /chart.js, /icon.svg
  // /api/models               ModelsJson
  // /api/models/NAME          ModelJson
  // /api/sessions/NAME        SessionJson; ?order=drift, ?begin=I, ?count=N
  // /metrics                  MetricsPage
  // /healthz                  200 "ok", or 503 "draining" once the server takes no new calls
  //
  // NAME may hold slashes. Errors of the API are {"error": text} with 400, 404, 429 (limits), 503 or 500. 404 for any
  // other path.
  HttpReply Answer(const HttpRequest& request);

 private:
  const Sources sources_;
  MetricsPage metrics_;
};

}  // namespace normserve
