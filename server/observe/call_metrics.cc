#include "server/observe/call_metrics.h"

#include <prometheus/family.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <string>

namespace normserve {
namespace {

// Seconds: 0.1 ms to 10 s, what lies between a small Forward on a GPU and the longest anybody waits for.
const prometheus::Histogram::BucketBoundaries kDurations = {0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025,
                                                            0.05,   0.1,     0.25,   0.5,   1,      2.5,   5,    10};
// Bytes: 256 to 256 MiB, by fours.
const prometheus::Histogram::BucketBoundaries kSizes = {256,     1 << 10, 4 << 10,  16 << 10, 64 << 10, 256 << 10,
                                                        1 << 20, 4 << 20, 16 << 20, 64 << 20, 256 << 20};

constexpr const char* kJobNames[] = {"forward", "backward"};

prometheus::Family<prometheus::Histogram>& RegisterFamily(prometheus::Registry& registry, const char* name,
                                                          const char* help) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(registry);
}

// Registering one again gives the one that is there.
prometheus::Family<prometheus::Histogram>& DurationFamily(prometheus::Registry& registry) {
  return RegisterFamily(registry, "normserve_rpc_duration_seconds",
                        "Calls by RPC and code, from the request being here to the answer being ready to leave; a "
                        "watch as long as it went "
                        "on, CANCELLED where its reader ended it.");
}

prometheus::Family<prometheus::Histogram>& RequestFamily(prometheus::Registry& registry) {
  return RegisterFamily(registry, "normserve_rpc_request_bytes", "Length of the requests' messages, by RPC.");
}

prometheus::Family<prometheus::Histogram>& ReplyFamily(prometheus::Registry& registry) {
  return RegisterFamily(
      registry, "normserve_rpc_reply_bytes",
      "Length of the replies' messages, by RPC, of a stream together; failed calls with one reply count as 0.");
}

}  // namespace

CallMetrics::CallMetrics() : registry_(std::make_unique<prometheus::Registry>()) {
  auto& jobs = RegisterFamily(*registry_, "normserve_engine_duration_seconds",
                              "Jobs of the engine, from being handed over to the result being on the host: the wait in "
                              "the device's queue is in it.");
  for (size_t job = 0; job < 2; ++job) {
    for (size_t ok = 0; ok < 2; ++ok) {
      job_durations_[job][ok] =
          &jobs.Add({{"direction", kJobNames[job]}, {"result", ok != 0 ? "ok" : "error"}}, kDurations);
    }
  }
}

CallMetrics::~CallMetrics() = default;

CallMetrics::Series& CallMetrics::SeriesOf(const EndedCall& call) {
  const std::pair key(call.method, call.code);
  {
    absl::ReaderMutexLock lock(&mutex_);
    const auto found = series_.find(key);
    if (found != series_.end()) return found->second;
  }
  const std::string method(call.method);
  absl::MutexLock lock(&mutex_);
  const auto [made, is_new] = series_.try_emplace(key);
  if (is_new) {
    made->second = {
        .duration = &DurationFamily(*registry_)
                         .Add({{"rpc", method}, {"code", absl::StatusCodeToString(call.code)}}, kDurations),
        .request_bytes = &RequestFamily(*registry_).Add({{"rpc", method}}, kSizes),
        .reply_bytes = &ReplyFamily(*registry_).Add({{"rpc", method}}, kSizes),
    };
  }
  return made->second;
}

void CallMetrics::CallEnded(const EndedCall& call) {
  Series& series = SeriesOf(call);
  series.duration->Observe(absl::ToDoubleSeconds(call.duration));
  series.request_bytes->Observe(static_cast<double>(call.request_bytes));
  series.reply_bytes->Observe(static_cast<double>(call.reply_bytes));
}

void CallMetrics::JobSubmitted(Job job) {
  jobs_in_work_[static_cast<size_t>(job)].fetch_add(1, std::memory_order_relaxed);
}

void CallMetrics::JobEnded(Job job, absl::Duration duration, bool ok) {
  jobs_in_work_[static_cast<size_t>(job)].fetch_sub(1, std::memory_order_relaxed);
  job_durations_[static_cast<size_t>(job)][ok ? 1 : 0]->Observe(absl::ToDoubleSeconds(duration));
}

std::vector<prometheus::MetricFamily> CallMetrics::Collect() const {
  std::vector<prometheus::MetricFamily> families = registry_->Collect();
  prometheus::MetricFamily in_work{.name = "normserve_engine_jobs_in_work",
                                   .help = "Jobs that are with the engine now, waiting ones included.",
                                   .type = prometheus::MetricType::Gauge};
  for (size_t job = 0; job < 2; ++job) {
    prometheus::ClientMetric metric;
    metric.label = {{"direction", kJobNames[job]}};
    metric.gauge.value = static_cast<double>(jobs_in_work_[job].load(std::memory_order_relaxed));
    in_work.metric.push_back(std::move(metric));
  }
  families.push_back(std::move(in_work));
  return families;
}

}  // namespace normserve
