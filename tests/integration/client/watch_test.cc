// Statistics watched through the client library.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <string>
#include <thread>
#include <vector>

#include "normserve/client.h"
#include "tests/integration/server_process.h"
#include "tests/unit/store/scratch_directory.h"

namespace normserve::client {
namespace {

using integration::ServerProcess;
using testing::HasSubstr;

const std::vector<float> kBatch = {1, 2, 3, 4, 5, 7, 9, 8};

Client Connect(const ServerProcess& server) { return *Client::Connect(server.address()); }

BatchNorm Create(const Client& client, const std::string& name) {
  auto session = client.CreateSession({.name = name, .config = {.num_features = 2}});
  EXPECT_TRUE(session.ok()) << session.status();
  return *session;
}

void Train(const BatchNorm& session) {
  const auto result = session.Forward({{4, 2}, kBatch});
  EXPECT_TRUE(result.ok()) << result.status();
}

TEST(StatsWatch, TellsWhatStatsWould) {
  const ServerProcess server;
  const Client client = Connect(server);
  const BatchNorm session = Create(client, "a");
  const StatsOptions options{.view = StatsView::kSummary, .compare_with = ComparisonSource::kLastBatch};
  const auto watch = session.Watch({.stats = options});
  ASSERT_TRUE(watch->Next().ok());
  Train(session);
  const auto update = watch->Next();
  ASSERT_TRUE(update.ok()) << update.status();
  const auto stats = session.Stats(options);
  ASSERT_TRUE(stats.ok()) << stats.status();
  EXPECT_EQ(update->sessions[0].generation, 1);
  ASSERT_TRUE(update->sessions[0].summary.has_value());
  EXPECT_EQ(update->sessions[0].summary->drift, stats->summary->drift);
  EXPECT_GT(stats->summary->drift, 0);
  EXPECT_EQ(update->sessions[0].flags, stats->flags);
  EXPECT_EQ(stats->flags.at("NOISY_BATCH"), std::vector<int64_t>({0, 1}));
}

TEST(Stats, TheHistoryIsReadByRange) {
  const ServerProcess server;
  const BatchNorm session = Create(Connect(server), "a");
  Train(session);
  Train(session);
  const auto all = session.Stats({.history = HistoryRange{}});
  ASSERT_TRUE(all.ok()) << all.status();
  ASSERT_EQ(all->history.size(), 2u);
  const HistoryPoint& newest = all->history[1];
  EXPECT_EQ(newest.update, 2);
  EXPECT_EQ(newest.generation, all->generation);
  EXPECT_EQ(newest.count, 4);
  EXPECT_EQ(newest.num_samples, 4);
  EXPECT_EQ(newest.batch_mean->max, (2 + 4 + 7 + 8) / 4.0);
  EXPECT_EQ(newest.running_var->max, all->statistics.running_var[0]);
  EXPECT_GT(newest.relative_gap, 0);
  EXPECT_LT(absl::AbsDuration(absl::Now() - newest.time), absl::Minutes(10));
  EXPECT_EQ(session.Stats({.history = HistoryRange{.after_generation = 1}})->history.size(), 1u);
  EXPECT_EQ(session.Stats({.history = HistoryRange{.since = newest.time + absl::Minutes(10)}})->history.size(), 0u);
  EXPECT_EQ(session.Stats(StatsOptions())->history.size(), 0u);
}

TEST(StatsWatch, AModelTellsWhatChangedAndWhatIsGone) {
  const ServerProcess server;
  const Client client = Connect(server);
  const BatchNorm a = Create(client, "net/a"), b = Create(client, "net/b");
  const auto watch = client.AttachModel("net").Watch();
  const auto first = watch->Next();
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_TRUE(first->is_complete);
  EXPECT_EQ(first->sessions.size(), 2u);
  ASSERT_TRUE(a.Delete().ok());
  const auto second = watch->Next();
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(second->deleted_sessions, std::vector<std::string>({"net/a"}));
  ASSERT_TRUE(b.Delete().ok());
  const auto end = watch->Next();
  EXPECT_TRUE(absl::IsNotFound(end.status())) << end.status();
  EXPECT_EQ(watch->Next().status(), end.status());
}

TEST(StatsWatch, CancelEndsAWaitInAnotherThread) {
  const ServerProcess server;
  const Client client = Connect(server);
  const auto watch = Create(client, "a").Watch();
  ASSERT_TRUE(watch->Next().ok());
  std::thread canceller([&] { watch->Cancel(); });
  EXPECT_TRUE(absl::IsCancelled(watch->Next().status()));
  canceller.join();
  EXPECT_TRUE(absl::IsCancelled(watch->Next().status()));
}

TEST(StatsWatch, ForEachEndsWhenItsTakerHasEnough) {
  const ServerProcess server;
  const Client client = Connect(server);
  int taken = 0;
  const absl::Status status =
      Create(client, "a").Watch({.interval = absl::Milliseconds(20)})->ForEach([&](const StatsUpdate& update) {
        EXPECT_EQ(update.sessions.size(), 1u);
        return ++taken < 3;
      });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(taken, 3);
}

TEST(StatsWatch, AServerThatStartsAgainIsWatchedAgain) {
  const ScratchDirectory directory;
  const std::vector<std::string> flags = {"--data-dir", directory.path()};
  auto server = std::make_unique<ServerProcess>(flags);
  const std::string address = server->address();
  const Client client = Connect(*server);
  const BatchNorm session = Create(client, "a");
  const auto watch = session.Watch({.stats = {.call = {.timeout = absl::Seconds(60)}}});
  ASSERT_TRUE(watch->Next().ok());
  for (const int signal : {SIGTERM, SIGKILL}) {
    server->Signal(signal);
    server->Wait();
    server = std::make_unique<ServerProcess>(flags, address);
    ASSERT_EQ(server->address(), address);
    Train(session);
    int64_t generation = session.Stats()->generation;
    for (int64_t told = 0; told < generation;) {
      const auto update = watch->Next();
      ASSERT_TRUE(update.ok()) << update.status();
      told = update->sessions[0].generation;
    }
  }
}

// Tried again as long as there is time, however few repetitions other calls get.
TEST(StatsWatch, FewAttemptsDoNotEndAWatch) {
  const ScratchDirectory directory;
  const std::vector<std::string> flags = {"--data-dir", directory.path()};
  auto server = std::make_unique<ServerProcess>(flags);
  const std::string address = server->address();
  const auto client = Client::Connect(
      address, {.timeout = absl::Seconds(60), .retry = {.max_attempts = 2, .initial_backoff = absl::Milliseconds(1)}});
  ASSERT_TRUE(client.ok()) << client.status();
  const BatchNorm session = Create(*client, "a");
  const auto watch = session.Watch();
  ASSERT_TRUE(watch->Next().ok());
  server->Signal(SIGKILL);
  server->Wait();
  absl::StatusOr<StatsUpdate> update;
  std::thread reader([&] { update = watch->Next(); });
  absl::SleepFor(absl::Milliseconds(300));  // for many attempts
  server = std::make_unique<ServerProcess>(flags, address);
  reader.join();
  EXPECT_TRUE(update.ok()) << update.status();
}

TEST(StatsWatch, AServerThatStaysAwayIsGivenUp) {
  auto server = std::make_unique<ServerProcess>();
  const Client client = Connect(*server);
  const auto watch = Create(client, "a").Watch({.stats = {.call = {.timeout = absl::Milliseconds(500)}}});
  ASSERT_TRUE(watch->Next().ok());
  server.reset();
  EXPECT_TRUE(absl::IsUnavailable(watch->Next().status()));
}

TEST(StatsWatch, WhatIsWrongShowsInTheFirstNext) {
  const ServerProcess server;
  const Client client = Connect(server);
  EXPECT_TRUE(absl::IsNotFound(client.Attach("nobody").Watch()->Next().status()));
  const auto refused = Create(client, "a").Watch({.interval = absl::Nanoseconds(5)})->Next();
  EXPECT_TRUE(absl::IsInvalidArgument(refused.status()));
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("interval is 5ns"));
}

}  // namespace
}  // namespace normserve::client
