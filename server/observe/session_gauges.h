// What /metrics tells of single sessions.
#pragma once

#include <prometheus/metric_family.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "kernels/batch_norm.h"
#include "server/session/session_registry.h"

namespace normserve {

// Gauges of the first `max_sessions` sessions in memory, in the order of their names; how many have none is told. No
// channel is told of. A session that did not change since costs a look-up, one that did a diagnosis. Thread-safe.
class SessionGauges {
 public:
  // `registry` outlives this.
  SessionGauges(const SessionRegistry& registry, int64_t max_sessions)
      : registry_(registry), max_sessions_(max_sessions) {}

  // normserve_session_…{session} and normserve_sessions_without_gauges.
  std::vector<prometheus::MetricFamily> Collect() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  // What follows from a session's content, and whether it is still that.
  struct Finding {
    std::shared_ptr<const SessionState> state;
    std::shared_ptr<const Moments> evidence;
    std::optional<double> drift;
    std::optional<double> relative_gap;
    int64_t num_flagged = 0;
  };
  static Finding Find(const std::shared_ptr<Session>& session, const SessionContent& content);

  // Constant.
  const SessionRegistry& registry_;
  const int64_t max_sessions_;

  absl::Mutex mutex_;
  std::map<std::string, Finding> findings_ ABSL_GUARDED_BY(mutex_);  // by uid
};

}  // namespace normserve
