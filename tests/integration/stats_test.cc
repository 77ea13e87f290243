// GetStats: views, flags and comparisons, of layers whose statistics are known.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/integration/server_process.h"
#include "tests/integration/test_client.h"

namespace normserve::integration {
namespace {

using grpc::StatusCode;
using testing::ElementsAre;
using testing::HasSubstr;

class StatsTest : public testing::Test {
 protected:
  void SetUp() override { ASSERT_FALSE(server_.address().empty()); }

  grpc::Status Ask(const v1::GetStatsRequest& request, v1::GetStatsReply& reply) {
    grpc::ClientContext context;
    return server_.stub().GetStats(&context, request, &reply);
  }
  v1::SessionStatistics Ask(const v1::GetStatsRequest& request) {
    v1::GetStatsReply reply;
    EXPECT_THAT(Ask(request, reply), Succeeds());
    return reply.sessions_size() == 1 ? reply.sessions(0) : v1::SessionStatistics();
  }
  static v1::GetStatsRequest Request(const std::string& name, v1::StatsView view, bool compare = false) {
    v1::GetStatsRequest request;
    request.set_name(name);
    request.set_view(view);
    request.set_return_comparison(compare);
    return request;
  }

  // A session with these statistics that has seen `num_batches`.
  void Create(const std::string& name, const std::vector<double>& mean, const std::vector<double>& var,
              int64_t num_batches, const std::vector<float>& weight = {}) {
    v1::CreateSessionRequest request;
    request.set_name(name);
    request.mutable_config()->set_num_features(static_cast<int64_t>(mean.size()));
    request.mutable_config()->set_momentum(0);  // training leaves the statistics as they are
    request.mutable_statistics()->mutable_running_mean()->Add(mean.begin(), mean.end());
    request.mutable_statistics()->mutable_running_var()->Add(var.begin(), var.end());
    request.mutable_statistics()->set_num_batches_tracked(num_batches);
    request.mutable_parameters()->mutable_weight()->Add(weight.begin(), weight.end());
    grpc::ClientContext context;
    v1::Session session;
    ASSERT_THAT(server_.stub().CreateSession(&context, request, &session), Succeeds());
  }

  ServerProcess server_;
  TestClient client_{server_.stub()};
};

std::vector<int64_t> ChannelsOf(const v1::SessionStatistics& stats, v1::FlagReason reason) {
  for (const auto& flag : stats.flags()) {
    if (flag.reason() == reason) return {flag.channels().begin(), flag.channels().end()};
  }
  return {};
}

TEST_F(StatsTest, FlagsNameTheChannelsThatNeedALook) {
  Create("a", {0, 0, 0, 0}, {1, 1e-9, 1e13, 1}, 5, {1, 1, 1, 0});
  const v1::SessionStatistics stats = Ask(Request("a", v1::STATS_VIEW_UNSPECIFIED));
  EXPECT_THAT(ChannelsOf(stats, v1::FLAG_REASON_DEAD), ElementsAre(1));
  EXPECT_THAT(ChannelsOf(stats, v1::FLAG_REASON_EXPLODING_ABSOLUTE), ElementsAre(2));
  EXPECT_THAT(ChannelsOf(stats, v1::FLAG_REASON_EXPLODING_RELATIVE), ElementsAre(2));
  EXPECT_THAT(ChannelsOf(stats, v1::FLAG_REASON_FROZEN_AFFINE), ElementsAre(3));
  EXPECT_EQ(stats.flags_size(), 4);
  EXPECT_EQ(stats.statistics().running_var_size(), 4);
  EXPECT_FALSE(stats.has_summary());

  v1::GetStatsRequest some = Request("a", v1::STATS_VIEW_CHANNELS);
  some.mutable_channel_range()->set_first(2);
  const v1::SessionStatistics range = Ask(some);
  EXPECT_THAT(ChannelsOf(range, v1::FLAG_REASON_EXPLODING_ABSOLUTE), ElementsAre(2)) << "by its number in the layer";
  EXPECT_THAT(ChannelsOf(range, v1::FLAG_REASON_DEAD), ElementsAre());

  client_.Create("fresh", 2);
  EXPECT_THAT(ChannelsOf(Ask(Request("fresh", v1::STATS_VIEW_CHANNELS)), v1::FLAG_REASON_NEVER_UPDATED),
              ElementsAre(0, 1));
  std::vector<float> constant(32, 3);
  ASSERT_THAT(client_.Forward(MakeForward("fresh", {16, 2}, constant)), Succeeds());
  EXPECT_THAT(ChannelsOf(Ask(Request("fresh", v1::STATS_VIEW_CHANNELS)), v1::FLAG_REASON_CONSTANT), ElementsAre(0, 1));
}

TEST_F(StatsTest, ASummaryHasQuantilesAndNoVectors) {
  std::vector<double> mean, var;
  for (int c = 0; c <= 1000; ++c) {
    mean.push_back(c);
    var.push_back(c == 7 ? 0 : 2);
  }
  Create("a", mean, var, 1);
  const v1::SessionStatistics stats = Ask(Request("a", v1::STATS_VIEW_SUMMARY));
  EXPECT_EQ(stats.statistics().running_mean_size(), 0);
  EXPECT_EQ(stats.statistics().num_batches_tracked(), 1);
  const v1::StatsSummary& summary = stats.summary();
  EXPECT_EQ(summary.num_features(), 1001);
  EXPECT_DOUBLE_EQ(summary.running_mean().min(), 0);
  EXPECT_DOUBLE_EQ(summary.running_mean().low(), 50);
  EXPECT_DOUBLE_EQ(summary.running_mean().median(), 500);
  EXPECT_DOUBLE_EQ(summary.running_mean().high(), 950);
  EXPECT_DOUBLE_EQ(summary.running_mean().max(), 1000);
  EXPECT_EQ(summary.batch_count(), 0);
  EXPECT_FALSE(summary.has_batch_mean());
  EXPECT_EQ(summary.flagged_channels().size(), 1u);
  EXPECT_EQ(summary.flagged_channels().at("DEAD"), 1);
  EXPECT_FALSE(summary.has_drift());
  EXPECT_LT(stats.ByteSizeLong(), 500u);

  client_.Create("fresh", 5000);
  const v1::SessionStatistics fresh = Ask(Request("fresh", v1::STATS_VIEW_SUMMARY));
  EXPECT_EQ(fresh.summary().flagged_channels().at("NEVER_UPDATED"), 5000);
  EXPECT_EQ(ChannelsOf(fresh, v1::FLAG_REASON_NEVER_UPDATED).size(), 100u);
}

// The batch 1, 3, 1, 3 of a channel has mean 2, biased variance 1 and unbiased 4/3.
TEST_F(StatsTest, TheComparisonIsThatOfTwoNormals) {
  Create("a", {0, 2}, {4, 1}, 9);
  v1::GetStatsRequest request = Request("a", v1::STATS_VIEW_CHANNELS, /*compare=*/true);
  EXPECT_EQ(Ask(request).comparison().count(), 0);
  EXPECT_EQ(Ask(request).comparison().kl_divergence_size(), 0);

  ASSERT_THAT(client_.Forward(MakeForward("a", {4, 2}, {1, 1, 3, 3, 1, 1, 3, 3})), Succeeds());
  const v1::Comparison comparison = Ask(request).comparison();
  EXPECT_EQ(comparison.source(), v1::COMPARISON_SOURCE_LAST_BATCH);
  EXPECT_EQ(comparison.count(), 4);
  EXPECT_DOUBLE_EQ(comparison.kl_divergence(0), (0.25 - 1 - std::log(0.25) + 1) / 2);
  EXPECT_EQ(comparison.kl_divergence(1), 0);
  EXPECT_DOUBLE_EQ(comparison.wasserstein(0), std::sqrt(4 + 1));
  EXPECT_DOUBLE_EQ(comparison.mean_z(0), 2);
  EXPECT_DOUBLE_EQ(comparison.variance_ratio(0), 1.0 / 3);
  EXPECT_EQ(comparison.mean_z(1), 0);

  const v1::StatsSummary both = Ask(request).summary();
  request.set_view(v1::STATS_VIEW_SUMMARY);
  const v1::SessionStatistics summed = Ask(request);
  EXPECT_FALSE(summed.has_comparison());
  EXPECT_EQ(both.DebugString(), summed.summary().DebugString()) << "a comparison is summed up in every view";
  EXPECT_NEAR(summed.summary().drift(), std::sqrt(5 / (4 + 1e-5) / 2), 1e-12);
  EXPECT_DOUBLE_EQ(summed.summary().mean_z().max(), 2);
  EXPECT_EQ(summed.summary().batch_count(), 4);
  EXPECT_DOUBLE_EQ(summed.summary().batch_var().median(), 1);

  request.set_view(v1::STATS_VIEW_CHANNELS);
  request.mutable_channel_range()->set_first(1);
  EXPECT_EQ(Ask(request).comparison().mean_z_size(), 1);
  EXPECT_EQ(Ask(request).comparison().mean_z(0), 0);
}

TEST_F(StatsTest, TheShadowMomentsAreComparedWhenTheyAreAskedFor) {
  Create("a", {0}, {1}, 9);
  ASSERT_THAT(client_.SetMode("a", v1::MODE_SHADOW), Succeeds());
  ASSERT_THAT(client_.Forward(MakeForward("a", {2, 1}, {1, 5})), Succeeds());
  v1::GetStatsRequest request = Request("a", v1::STATS_VIEW_CHANNELS, /*compare=*/true);
  EXPECT_EQ(Ask(request).comparison().count(), 0) << "no batch has updated the running statistics";
  request.set_compare_with(v1::COMPARISON_SOURCE_SHADOW);
  const v1::Comparison comparison = Ask(request).comparison();
  EXPECT_EQ(comparison.source(), v1::COMPARISON_SOURCE_SHADOW);
  EXPECT_EQ(comparison.count(), 2);
  EXPECT_DOUBLE_EQ(comparison.wasserstein(0), std::sqrt(9 + 1));
}

TEST_F(StatsTest, WhatWasObservedIsComparedWhenItIsAskedFor) {
  Create("a", {0}, {4}, 9);
  v1::GetStatsRequest request = Request("a", v1::STATS_VIEW_CHANNELS, /*compare=*/true);
  request.set_compare_with(v1::COMPARISON_SOURCE_OBSERVED);
  EXPECT_EQ(Ask(request).comparison().count(), 0);
  v1::ObserveRequest observe;
  observe.set_name("a");
  observe.mutable_moments()->set_count(16);
  observe.mutable_moments()->add_mean(1);
  observe.mutable_moments()->add_m2(16);
  grpc::ClientContext context;
  v1::ObserveReply observed;
  ASSERT_THAT(server_.stub().Observe(&context, observe, &observed), Succeeds());
  const v1::Comparison comparison = Ask(request).comparison();
  EXPECT_EQ(comparison.source(), v1::COMPARISON_SOURCE_OBSERVED);
  EXPECT_EQ(comparison.count(), 16);
  EXPECT_DOUBLE_EQ(comparison.mean_z(0), 2);
  EXPECT_DOUBLE_EQ(comparison.wasserstein(0), std::sqrt(1 + 1));
}

TEST_F(StatsTest, ASessionWithoutStatisticsHasNothingToCompare) {
  v1::CreateSessionRequest create;
  create.set_name("a");
  create.mutable_config()->set_num_features(2);
  create.mutable_config()->set_track_running_stats(false);
  grpc::ClientContext context;
  v1::Session session;
  ASSERT_THAT(server_.stub().CreateSession(&context, create, &session), Succeeds());
  for (const v1::StatsView view : {v1::STATS_VIEW_CHANNELS, v1::STATS_VIEW_SUMMARY}) {
    const v1::SessionStatistics stats = Ask(Request("a", view, /*compare=*/true));
    EXPECT_EQ(stats.comparison().count(), 0);
    EXPECT_FALSE(stats.summary().has_running_mean());
    EXPECT_FALSE(stats.summary().has_drift());
  }
}

TEST_F(StatsTest, TheLayersOfAModelAreRankedByDrift) {
  for (const char* layer : {"near", "far"}) Create(absl::StrCat("net/", layer), {0, 0}, {1, 1}, 100);
  ASSERT_THAT(client_.Forward(MakeForward("net/near", {2, 2}, {-1, -1, 1, 1})), Succeeds());
  ASSERT_THAT(client_.Forward(MakeForward("net/far", {2, 2}, {4, 4, 6, 6})), Succeeds());
  v1::GetStatsReply reply;
  ASSERT_THAT(Ask(Request("net/", v1::STATS_VIEW_SUMMARY, /*compare=*/true), reply), Succeeds());
  ASSERT_EQ(reply.sessions_size(), 2);
  EXPECT_NEAR(reply.sessions(0).summary().drift(), 5, 1e-3);
  EXPECT_LT(reply.sessions(1).summary().drift(), 1e-3);
}

std::vector<int64_t> UpdatesOf(const v1::SessionStatistics& stats) {
  std::vector<int64_t> updates;
  for (const v1::HistoryPoint& point : stats.history()) updates.push_back(point.update());
  return updates;
}

TEST_F(StatsTest, TheHistoryIsReadWholeByGenerationAndByTime) {
  client_.Create("a", 1);
  for (int k = 1; k <= 12; ++k) {
    const auto x = static_cast<float>(k);
    ASSERT_THAT(client_.Forward(MakeForward("a", {2, 1}, {x - 2, x + 2})), Succeeds());
  }
  v1::GetStatsRequest request = Request("a", v1::STATS_VIEW_SUMMARY);
  EXPECT_EQ(Ask(request).history_size(), 0);
  request.mutable_history_range();
  const v1::SessionStatistics all = Ask(request);
  ASSERT_THAT(UpdatesOf(all), ElementsAre(1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12));
  for (const v1::HistoryPoint& point : all.history()) {
    EXPECT_EQ(point.count(), 2);
    EXPECT_EQ(point.num_samples(), 2);
    EXPECT_EQ(point.num_batches_tracked(), point.update());
    EXPECT_EQ(point.batch_mean().median(), static_cast<double>(point.update()));
    EXPECT_EQ(point.batch_var().median(), 4);
  }
  // The running mean of the first batch, and the gap of the newest: by the formulas.
  EXPECT_NEAR(all.history(0).running_mean().median(), 0.1, 1e-15);
  const double mean = all.summary().running_mean().median(), var = all.summary().running_var().median();
  EXPECT_EQ(all.history(10).running_mean().median(), mean);
  const double of_eval = 1 / std::sqrt(var + 1e-5), of_train = 1 / std::sqrt(4 + 1e-5);
  EXPECT_NEAR(all.history(10).relative_gap(), std::hypot((of_eval - of_train) * 2, (12 - mean) * of_eval), 1e-12);

  request.mutable_history_range()->set_after_generation(all.history(8).generation());
  EXPECT_THAT(UpdatesOf(Ask(request)), ElementsAre(11, 12));
  *request.mutable_history_range()->mutable_since_time() = all.history(10).time();
  const std::vector<int64_t> newest = UpdatesOf(Ask(request));
  ASSERT_FALSE(newest.empty());
  EXPECT_EQ(newest.back(), 12);
  request.mutable_history_range()->mutable_since_time()->set_seconds(all.history(10).time().seconds() + 100);
  EXPECT_EQ(Ask(request).history_size(), 0);
}

TEST_F(StatsTest, ARangeOfHistoryThatIsNoneIsRefusedByName) {
  client_.Create("a", 1);
  v1::GetStatsRequest generation = Request("a", v1::STATS_VIEW_SUMMARY), nanos = generation, seconds = generation;
  generation.mutable_history_range()->set_after_generation(-1);
  nanos.mutable_history_range()->mutable_since_time()->set_nanos(-1);
  seconds.mutable_history_range()->mutable_since_time()->set_seconds(std::numeric_limits<int64_t>::max());
  const struct {
    v1::GetStatsRequest request;
    const char* text;
  } cases[] = {{generation, "history_range.after_generation is -1"},
               {nanos, "history_range.since_time has 0 seconds and -1 nanos"},
               {seconds, "history_range.since_time has 9223372036854775807 seconds"}};
  for (const auto& [request, text] : cases) {
    v1::GetStatsReply reply;
    const grpc::Status status = Ask(request, reply);
    EXPECT_THAT(status, Fails(StatusCode::INVALID_ARGUMENT, "INVALID_FIELD"));
    EXPECT_THAT(status.error_message(), HasSubstr(text));
  }
}

TEST_F(StatsTest, AnEnumeratorThatIsNoneIsRefusedByName) {
  client_.Create("a", 2);
  v1::GetStatsRequest view = Request("a", static_cast<v1::StatsView>(9)),
                      source = Request("a", v1::STATS_VIEW_SUMMARY, /*compare=*/true),
                      half = Request("a", v1::STATS_VIEW_SUMMARY);
  source.set_compare_with(static_cast<v1::ComparisonSource>(9));
  half.set_compare_with(v1::COMPARISON_SOURCE_SHADOW);
  const struct {
    v1::GetStatsRequest request;
    const char* text;
  } cases[] = {{view, "view is 9"}, {source, "compare_with is 9"}, {half, "return_comparison is not"}};
  for (const auto& [request, text] : cases) {
    v1::GetStatsReply reply;
    const grpc::Status status = Ask(request, reply);
    EXPECT_THAT(status, Fails(StatusCode::INVALID_ARGUMENT, "INVALID_FIELD"));
    EXPECT_THAT(status.error_message(), HasSubstr(text));
  }
}

}  // namespace
}  // namespace normserve::integration
