#include "server/observe/call_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <string>

#include "kernels/reference_engine.h"
#include "server/observe/measured_engine.h"

namespace normserve {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;

using LabelSet = std::map<std::string, std::string>;

LabelSet LabelsOf(const prometheus::ClientMetric& metric) {
  LabelSet labels;
  for (const auto& label : metric.label) labels[label.name] = label.value;
  return labels;
}

// The series of one family, by labels.
std::map<LabelSet, prometheus::ClientMetric> SeriesOf(const CallMetrics& metrics, const std::string& family) {
  std::map<LabelSet, prometheus::ClientMetric> found;
  for (const auto& each : metrics.Collect()) {
    if (each.name != family) continue;
    for (const auto& metric : each.metric) found[LabelsOf(metric)] = metric;
  }
  return found;
}

std::map<LabelSet, uint64_t> CountsOf(const CallMetrics& metrics, const std::string& family) {
  std::map<LabelSet, uint64_t> counts;
  for (const auto& [labels, metric] : SeriesOf(metrics, family)) counts[labels] = metric.histogram.sample_count;
  return counts;
}

TEST(CallMetrics, ACallCountsUnderItsMethodAndCode) {
  CallMetrics metrics;
  metrics.CallEnded({.method = "Forward", .duration = absl::Milliseconds(2), .request_bytes = 100, .reply_bytes = 90});
  metrics.CallEnded({.method = "Forward", .duration = absl::Milliseconds(4), .request_bytes = 300, .reply_bytes = 310});
  metrics.CallEnded({.method = "Forward", .code = absl::StatusCode::kNotFound, .request_bytes = 7});
  metrics.CallEnded({.method = "GetStats", .request_bytes = 9, .reply_bytes = 5});
  EXPECT_THAT(CountsOf(metrics, "normserve_rpc_duration_seconds"),
              ElementsAre(Pair(LabelSet{{"code", "NOT_FOUND"}, {"rpc", "Forward"}}, 1),
                          Pair(LabelSet{{"code", "OK"}, {"rpc", "Forward"}}, 2),
                          Pair(LabelSet{{"code", "OK"}, {"rpc", "GetStats"}}, 1)));
  const auto requests = SeriesOf(metrics, "normserve_rpc_request_bytes");
  EXPECT_EQ(requests.at({{"rpc", "Forward"}}).histogram.sample_sum, 407);
  const auto replies = SeriesOf(metrics, "normserve_rpc_reply_bytes");
  EXPECT_EQ(replies.at({{"rpc", "Forward"}}).histogram.sample_sum, 400);
  const auto durations = SeriesOf(metrics, "normserve_rpc_duration_seconds");
  EXPECT_NEAR(durations.at({{"code", "OK"}, {"rpc", "Forward"}}).histogram.sample_sum, 0.006, 1e-12);
}

TEST(CallMetrics, AJobOfTheEngineIsInWorkUntilItsEndAndThenTimed) {
  CallMetrics metrics;
  metrics.JobSubmitted(JobObserver::Job::kBackward);
  EXPECT_EQ(SeriesOf(metrics, "normserve_engine_jobs_in_work").at({{"direction", "backward"}}).gauge.value, 1);
  metrics.JobEnded(JobObserver::Job::kBackward, absl::Seconds(1), /*ok=*/false);
  EXPECT_EQ(SeriesOf(metrics, "normserve_engine_jobs_in_work").at({{"direction", "backward"}}).gauge.value, 0);
  const auto counts = CountsOf(metrics, "normserve_engine_duration_seconds");
  EXPECT_EQ(counts.at({{"direction", "backward"}, {"result", "error"}}), 1u);
  EXPECT_EQ(counts.at({{"direction", "forward"}, {"result", "ok"}}), 0u);
}

TEST(MeasuredEngine, GivesTheEnginesResultAndCountsTheJob) {
  CallMetrics metrics;
  ReferenceEngine engine;
  MeasuredEngine measured(engine, metrics);
  const float values[] = {1, 3};
  ForwardJob job{.input = {.shape = {.batch_size = 2, .num_features = 1, .spatial_size = 1},
                           .pieces = {absl::MakeConstSpan(reinterpret_cast<const std::byte*>(values), sizeof(values))}},
                 .parameters = std::make_shared<AffineParameters>(AffineParameters{{1}, {0}})};
  std::optional<double> mean;
  measured.Forward(std::move(job), [&mean](auto result) { mean = result->moments->mean[0]; });
  EXPECT_EQ(mean, 2);
  EXPECT_EQ(CountsOf(metrics, "normserve_engine_duration_seconds").at({{"direction", "forward"}, {"result", "ok"}}),
            1u);
  EXPECT_EQ(SeriesOf(metrics, "normserve_engine_jobs_in_work").at({{"direction", "forward"}}).gauge.value, 0);
}

}  // namespace
}  // namespace normserve
