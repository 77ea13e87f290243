// The text of /metrics.
#pragma once

#include <cstdint>
#include <string>

#include "server/observe/call_metrics.h"
#include "server/observe/session_gauges.h"
#include "server/rpc/call_gate.h"
#include "server/rpc/server_description.h"
#include "server/session/saved_forward_cache.h"
#include "server/session/session_registry.h"

namespace normserve {

// Thread-safe.
class MetricsPage {
 public:
  // All outlive this.
  struct Sources {
    const CallMetrics& calls;
    const SessionRegistry& registry;
    const CallGate& gate;
    const SavedForwardCache& saved_forwards;
    const ServerDescription& server;
  };
  MetricsPage(const Sources& sources, int64_t max_session_gauges)
      : sources_(sources), sessions_(sources.registry, max_session_gauges) {}

  // Prometheus' text exposition format, version 0.0.4.
  static constexpr char kContentType[] = "text/plain; version=0.0.4; charset=utf-8";
  std::string Write();

 private:
  const Sources sources_;
  SessionGauges sessions_;
};

}  // namespace normserve
