#include "server/observe/session_gauges.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/server/answers.h"

namespace normserve {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// By session, or "" where there is no label.
std::map<std::string, double> ValuesOf(SessionGauges& gauges, const std::string& family) {
  std::map<std::string, double> values;
  for (const auto& each : gauges.Collect()) {
    if (each.name != family) continue;
    for (const auto& metric : each.metric) {
      values[metric.label.empty() ? "" : metric.label[0].value] = metric.gauge.value;
    }
  }
  return values;
}

void Train(SessionRegistry& registry, const std::string& name, const Moments& moments) {
  const auto session = *registry.Find(name);
  ASSERT_TRUE(CommitForward(*session, {}, {}, {.snapshot = session->Snapshot(), .moments = moments}).ok());
}

TEST(SessionGauges, TheGapIsThatOfTheNewestBatchAndAbsentBeforeTheFirst) {
  SessionRegistry registry({});
  ASSERT_TRUE(Create(registry, {.name = "a", .config = {.num_features = 1, .epsilon = 0, .momentum = 1}}).ok());
  SessionGauges gauges(registry, 10);
  EXPECT_THAT(ValuesOf(gauges, "normserve_session_relative_gap"), IsEmpty());
  // The running variance is the unbiased 8/7 then, training's is 1: a gap of 1 - sqrt(7/8).
  Train(registry, "a", {.count = 8, .mean = {5}, .m2 = {8}});
  EXPECT_NEAR(ValuesOf(gauges, "normserve_session_relative_gap").at("a"), 1 - std::sqrt(7.0 / 8.0), 1e-9);
  EXPECT_EQ(ValuesOf(gauges, "normserve_session_generation").at("a"), 1);
  EXPECT_EQ(ValuesOf(gauges, "normserve_session_batches_tracked").at("a"), 1);
  // Eight values are few, a constant channel is flagged beside: the same session, looked at again.
  Train(registry, "a", {.count = 80, .mean = {5}, .m2 = {80}});
  EXPECT_NEAR(ValuesOf(gauges, "normserve_session_relative_gap").at("a"), 1 - std::sqrt(79.0 / 80.0), 1e-9);
  EXPECT_EQ(ValuesOf(gauges, "normserve_session_flagged_channels").at("a"), 0);
  Train(registry, "a", {.count = 80, .mean = {5}, .m2 = {0}});
  EXPECT_EQ(ValuesOf(gauges, "normserve_session_flagged_channels").at("a"), 1);
}

TEST(SessionGauges, AreThoseOfTheFirstSessionsAndTellOfHowManyThereAreNone) {
  SessionRegistry registry({});
  for (const char* const name : {"c", "a", "b"}) {
    ASSERT_TRUE(Create(registry, {.name = name, .config = {.num_features = 1}}).ok());
  }
  SessionGauges two(registry, 2);
  EXPECT_THAT(ValuesOf(two, "normserve_session_generation"), ElementsAre(std::pair("a", 0), std::pair("b", 0)));
  EXPECT_EQ(ValuesOf(two, "normserve_sessions_without_gauges").at(""), 1);
  SessionGauges none(registry, 0);
  EXPECT_THAT(ValuesOf(none, "normserve_session_generation"), IsEmpty());
  EXPECT_EQ(ValuesOf(none, "normserve_sessions_without_gauges").at(""), 3);
  // One that is gone has no series any more.
  ASSERT_TRUE(Delete(registry, "a", {}).ok());
  EXPECT_THAT(ValuesOf(two, "normserve_session_generation"), ElementsAre(std::pair("b", 0), std::pair("c", 0)));
}

}  // namespace
}  // namespace normserve
