// Histograms of calls and of the engine's jobs.
#pragma once

#include <prometheus/metric_family.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "server/observe/measured_engine.h"
#include "server/rpc/call_observer.h"

namespace prometheus {
class Histogram;
class Registry;
}  // namespace prometheus

namespace normserve {

// What a call costs here is a search in a small map and three additions, some 0.1 us. Series are as many as there are
// methods and codes; no session, no channel. Thread-safe.
class CallMetrics final : public CallObserver, public JobObserver {
 public:
  CallMetrics();
  ~CallMetrics() override;

  void CallEnded(const EndedCall& call) override ABSL_LOCKS_EXCLUDED(mutex_);
  void JobSubmitted(Job job) override;
  void JobEnded(Job job, absl::Duration duration, bool ok) override;

  // normserve_rpc_duration_seconds{rpc,code}, normserve_rpc_request_bytes{rpc}, normserve_rpc_reply_bytes{rpc},
  // normserve_engine_duration_seconds{direction,result}, normserve_engine_jobs_in_work{direction}.
  std::vector<prometheus::MetricFamily> Collect() const;

 private:
  // Of one method and code.
  struct Series {
    prometheus::Histogram* duration;
    prometheus::Histogram* request_bytes;
    prometheus::Histogram* reply_bytes;
  };
  Series& SeriesOf(const EndedCall& call) ABSL_LOCKS_EXCLUDED(mutex_);

  const std::unique_ptr<prometheus::Registry> registry_;

  mutable absl::Mutex mutex_;
  // The method by its text: there are some thirty.
  std::map<std::pair<absl::string_view, absl::StatusCode>, Series> series_ ABSL_GUARDED_BY(mutex_);

  std::array<std::array<prometheus::Histogram*, 2>, 2> job_durations_;  // by job and whether it went well
  std::array<std::atomic<int64_t>, 2> jobs_in_work_{};
};

}  // namespace normserve
