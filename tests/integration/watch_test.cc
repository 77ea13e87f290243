// WatchStats: what watchers are told, when they are not, and how it ends.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <limits>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/integration/server_process.h"
#include "tests/integration/test_client.h"

namespace normserve::integration {
namespace {

using grpc::StatusCode;
using testing::ElementsAre;
using testing::HasSubstr;

// Longer than any test should take.
constexpr std::chrono::seconds kPatience(60);

// One call, read as the test asks for it.
class Watch {
 public:
  Watch(v1::BatchNormService::Stub& stub, const v1::WatchStatsRequest& request) {
    context_.set_deadline(std::chrono::system_clock::now() + kPatience);
    reader_ = stub.WatchStats(&context_, request);
  }
  // The next message; an empty one, and a failure, if there is none.
  v1::WatchStatsReply Next() {
    v1::WatchStatsReply reply;
    EXPECT_TRUE(reader_->Read(&reply)) << reader_->Finish().error_message();
    return reply;
  }
  // How it ends, the messages before left out.
  grpc::Status End() {
    v1::WatchStatsReply reply;
    while (reader_->Read(&reply)) continue;
    return reader_->Finish();
  }
  // Reads until `session` is at `generation`; all generations told on the way.
  std::vector<int64_t> ReadUntil(const std::string& session, int64_t generation) {
    std::vector<int64_t> told;
    v1::WatchStatsReply reply;
    while (reader_->Read(&reply)) {
      for (const auto& stats : reply.sessions()) {
        if (stats.name() == session) told.push_back(stats.generation());
      }
      if (!told.empty() && told.back() >= generation) return told;
    }
    ADD_FAILURE() << "ended before generation " << generation << ": " << reader_->Finish().error_message();
    return told;
  }
  void Cancel() { context_.TryCancel(); }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<v1::WatchStatsReply>> reader_;
};

v1::WatchStatsRequest Request(const std::string& name, v1::StatsView view = v1::STATS_VIEW_CHANNELS) {
  v1::WatchStatsRequest request;
  request.mutable_stats()->set_name(name);
  request.mutable_stats()->set_view(view);
  return request;
}

std::vector<std::string> NamesIn(const v1::WatchStatsReply& reply) {
  std::vector<std::string> names;
  for (const auto& session : reply.sessions()) names.push_back(session.name());
  return names;
}

class WatchTest : public testing::Test {
 protected:
  void SetUp() override { ASSERT_FALSE(server_.address().empty()); }

  void Train(const std::string& name, uint32_t seed = 1) {
    EXPECT_THAT(client_.Forward(MakeForward(name, {4, 2}, SomeValues(8, seed))), Succeeds());
  }
  void Delete(const std::string& name) {
    v1::DeleteSessionRequest request;
    request.set_name(name);
    v1::DeleteSessionReply reply;
    grpc::ClientContext context;
    EXPECT_THAT(server_.stub().DeleteSession(&context, request, &reply), Succeeds());
  }
  v1::SessionStatistics Stats(const v1::GetStatsRequest& request) {
    grpc::ClientContext context;
    v1::GetStatsReply reply;
    EXPECT_THAT(server_.stub().GetStats(&context, request, &reply), Succeeds());
    return reply.sessions(0);
  }
  // A watch of `name` by itself: what it ends with at once.
  grpc::Status Refused(const v1::WatchStatsRequest& request) { return Watch(server_.stub(), request).End(); }

  ServerProcess server_;
  TestClient client_{server_.stub()};
};

TEST_F(WatchTest, ASessionIsToldAtOnceAndAfterEveryChangeAsGetStatsHasIt) {
  client_.Create("a", 2);
  client_.Create("b", 2);
  v1::WatchStatsRequest request = Request("a");
  request.mutable_stats()->set_return_last_batch(true);
  request.mutable_stats()->set_return_comparison(true);
  Watch watch(server_.stub(), request);
  const v1::WatchStatsReply first = watch.Next();
  EXPECT_THAT(NamesIn(first), ElementsAre("a"));
  EXPECT_EQ(first.sessions(0).generation(), 0);
  for (int generation = 1; generation <= 3; ++generation) {
    Train("b");
    Train("a", static_cast<uint32_t>(generation));
    const v1::WatchStatsReply next = watch.Next();
    ASSERT_THAT(NamesIn(next), ElementsAre("a"));
    EXPECT_EQ(next.sessions(0).generation(), generation);
    EXPECT_EQ(next.sessions(0).DebugString(), Stats(request.stats()).DebugString());
  }
  ASSERT_THAT(client_.SetMode("a", v1::MODE_EVAL), Succeeds());
  EXPECT_EQ(watch.Next().sessions(0).mode(), v1::MODE_EVAL);
}

TEST_F(WatchTest, WhatIsBesideTheStateIsToldToo) {
  client_.Create("a", 2);
  ASSERT_THAT(client_.SetMode("a", v1::MODE_SHADOW), Succeeds());
  v1::WatchStatsRequest request = Request("a");
  request.mutable_stats()->set_return_shadow(true);
  Watch watch(server_.stub(), request);
  EXPECT_EQ(watch.Next().sessions(0).shadow().count(), 0);
  Train("a");
  EXPECT_EQ(watch.Next().sessions(0).shadow().count(), 4);
}

TEST_F(WatchTest, NothingIsSentBeforeTheGenerationThatIsWaitedFor) {
  client_.Create("a", 2);
  v1::WatchStatsRequest request = Request("a");
  request.set_after_generation(1);
  Watch watch(server_.stub(), request);
  Watch other(server_.stub(), Request("a"));
  other.Next();
  Train("a");
  other.ReadUntil("a", 1);
  Train("a");
  EXPECT_EQ(watch.Next().sessions(0).generation(), 2);
}

TEST_F(WatchTest, OfAModelOnlyTheSessionsThatChangedAreSent) {
  for (const char* name : {"net/a", "net/b", "net/c", "network/a"}) client_.Create(name, 2);
  Watch watch(server_.stub(), Request("net/"));
  const v1::WatchStatsReply first = watch.Next();
  EXPECT_THAT(NamesIn(first), ElementsAre("net/a", "net/b", "net/c"));
  EXPECT_TRUE(first.is_complete());
  Train("network/a");
  Train("net/b");
  const v1::WatchStatsReply second = watch.Next();
  EXPECT_THAT(NamesIn(second), ElementsAre("net/b"));
  EXPECT_FALSE(second.is_complete());

  client_.Create("net/d", 2);
  EXPECT_THAT(NamesIn(watch.Next()), ElementsAre("net/d"));
  Delete("net/a");
  const v1::WatchStatsReply deleted = watch.Next();
  EXPECT_THAT(NamesIn(deleted), ElementsAre());
  ASSERT_EQ(deleted.deleted_sessions_size(), 1);
  EXPECT_EQ(deleted.deleted_sessions(0), "net/a");

  v1::SetModeRequest mode;
  mode.set_name("net/");
  mode.set_mode(v1::MODE_EVAL);
  grpc::ClientContext context;
  v1::SetModeReply reply;
  ASSERT_THAT(server_.stub().SetMode(&context, mode, &reply), Succeeds());
  std::set<std::string> told;
  while (told.size() < 3) {
    for (const std::string& name : NamesIn(watch.Next())) told.insert(name);
  }
}

TEST_F(WatchTest, ADeletedSessionEndsItsWatchAndSaysSo) {
  client_.Create("a", 2);
  Watch watch(server_.stub(), Request("a"));
  watch.Next();
  Delete("a");
  const grpc::Status status = watch.End();
  EXPECT_THAT(status, Fails(StatusCode::NOT_FOUND, "SESSION_NOT_FOUND"));
  EXPECT_THAT(status.error_message(), HasSubstr("deleted while it was watched"));

  client_.Create("net/a", 2);
  Watch model(server_.stub(), Request("net/"));
  model.Next();
  Delete("net/a");
  EXPECT_THAT(model.End(), Fails(StatusCode::NOT_FOUND, "SESSION_NOT_FOUND"));
}

TEST_F(WatchTest, OneThatIsOpenedAgainUnderItsNameIsAnother) {
  client_.Create("a", 2);
  Watch watch(server_.stub(), Request("a"));
  watch.Next();
  Delete("a");
  client_.Create("a", 2);
  EXPECT_THAT(watch.End(), Fails(StatusCode::NOT_FOUND, "SESSION_NOT_FOUND"));
  Watch again(server_.stub(), Request("a"));
  EXPECT_EQ(again.Next().sessions(0).uid(), client_.Get("a").uid());
}

TEST_F(WatchTest, ByIntervalMessagesComeWithoutAChange) {
  client_.Create("net/a", 2);
  for (const char* name : {"net/a", "net/"}) {
    v1::WatchStatsRequest request = Request(name);
    request.mutable_interval()->set_nanos(20'000'000);
    Watch watch(server_.stub(), request);
    EXPECT_EQ(watch.Next().sessions_size(), 1);
    for (int i = 0; i < 3; ++i) EXPECT_EQ(watch.Next().sessions_size(), name == std::string("net/a") ? 1 : 0);
    Train("net/a");
    const int64_t generation = client_.Get("net/a").generation();
    EXPECT_EQ(watch.ReadUntil("net/a", generation).back(), generation);
  }
}

TEST_F(WatchTest, ASlowWatcherSkipsToTheNewestAndHoldsNobodyUp) {
  constexpr int64_t kFeatures = 20'000;  // so that a few messages fill what the transport takes
  client_.Create("a", kFeatures);
  Watch slow(server_.stub(), Request("a"));
  slow.Next();
  constexpr int64_t kSteps = 60;
  const std::vector<float> values = SomeValues(2 * kFeatures);
  for (int64_t i = 0; i < kSteps; ++i) {
    ASSERT_THAT(client_.Forward(MakeForward("a", {2, kFeatures}, values)), Succeeds());
    absl::SleepFor(absl::Milliseconds(30));  // beyond the pace, so that it is the reader who is slow
  }
  const std::vector<int64_t> told = slow.ReadUntil("a", kSteps);
  EXPECT_EQ(told.back(), kSteps);
  EXPECT_LT(told.size(), static_cast<size_t>(kSteps));
  EXPECT_TRUE(std::is_sorted(told.begin(), told.end()));
}

TEST_F(WatchTest, ManyWatchersAllHearOfTheLastChange) {
  client_.Create("a", 2);
  client_.Create("net/a", 2);
  constexpr int kWatchers = 40;
  constexpr int64_t kSteps = 200;
  std::vector<std::thread> threads;
  std::atomic<int> started = 0;
  for (int i = 0; i < kWatchers; ++i) {
    threads.emplace_back([&, i] {
      const std::string session = i % 2 == 0 ? "a" : "net/a";
      Watch watch(server_.stub(), Request(i % 4 == 3 ? "net/" : session));
      watch.Next();
      ++started;
      const std::vector<int64_t> told = watch.ReadUntil(session, kSteps);
      EXPECT_TRUE(std::is_sorted(told.begin(), told.end()));
    });
  }
  while (started < kWatchers) absl::SleepFor(absl::Milliseconds(1));
  for (int64_t i = 0; i < kSteps; ++i) {
    Train("a");
    Train("net/a");
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_F(WatchTest, WatchersThatCancelMakeRoomForOthers) {
  ServerProcess server({"--max-watchers", "2"});
  ASSERT_FALSE(server.address().empty());
  TestClient client(server.stub());
  client.Create("a", 2);
  v1::ServerInfo info;
  grpc::ClientContext context;
  ASSERT_THAT(server.stub().GetServerInfo(&context, {}, &info), Succeeds());
  EXPECT_EQ(info.limits().max_watchers(), 2);
  auto first = std::make_unique<Watch>(server.stub(), Request("a"));
  Watch second(server.stub(), Request("a"));
  first->Next();
  second.Next();
  const grpc::Status refused = Watch(server.stub(), Request("a")).End();
  EXPECT_THAT(refused, Fails(StatusCode::RESOURCE_EXHAUSTED, "LIMIT_REACHED"));
  EXPECT_EQ(MetadataOf(refused, "limit"), "max_watchers");
  first->Cancel();
  EXPECT_EQ(first->End().error_code(), StatusCode::CANCELLED);
  // The server hears of it a little later.
  for (bool is_in = false; !is_in;) {
    v1::WatchStatsRequest request = Request("a");
    grpc::ClientContext watch_context;
    const auto reader = server.stub().WatchStats(&watch_context, request);
    v1::WatchStatsReply reply;
    is_in = reader->Read(&reply);
    if (is_in) watch_context.TryCancel();  // else the server has ended it, which a cancellation would hide
    const StatusCode code = reader->Finish().error_code();
    EXPECT_TRUE(is_in || code == StatusCode::RESOURCE_EXHAUSTED) << code;
  }
}

TEST_F(WatchTest, AServerThatDrainsEndsWatchesAndExits) {
  ServerProcess server;
  ASSERT_FALSE(server.address().empty());
  TestClient client(server.stub());
  client.Create("a", 2);
  Watch watch(server.stub(), Request("a")), model_like(server.stub(), Request("a", v1::STATS_VIEW_SUMMARY));
  watch.Next();
  model_like.Next();
  server.Signal(SIGTERM);
  EXPECT_THAT(watch.End(), Fails(StatusCode::UNAVAILABLE, "DRAINING"));
  EXPECT_THAT(model_like.End(), Fails(StatusCode::UNAVAILABLE, "DRAINING"));
  EXPECT_EQ(server.Wait(), 0);
}

TEST_F(WatchTest, WhatCannotBeWatchedIsRefusedAtOnce) {
  client_.Create("net/a", 2);
  v1::WatchStatsRequest short_interval = Request("net/a"), negative = Request("net/a"),
                        long_interval = Request("net/a"), generation = Request("net/"), range = Request("net/a"),
                        view = Request("net/a"), before_all = Request("net/a");
  short_interval.mutable_interval()->set_nanos(1);
  negative.mutable_interval()->set_seconds(-1);
  long_interval.mutable_interval()->set_seconds(std::numeric_limits<int64_t>::max());
  generation.set_after_generation(3);
  before_all.set_after_generation(-1);
  range.mutable_stats()->mutable_channel_range()->set_first(2);
  range.set_after_generation(100);
  view.mutable_stats()->set_view(static_cast<v1::StatsView>(77));
  const struct {
    v1::WatchStatsRequest request;
    const char* text;
  } cases[] = {{short_interval, "interval is 1ns"},
               {negative, "interval is -1s"},
               {long_interval, "interval is"},
               {generation, "after_generation goes with a single session"},
               {before_all, "after_generation is -1"},
               {range, "channel_range.first is 2"},
               {view, "view is 77"}};
  for (const auto& [request, text] : cases) {
    const grpc::Status status = Refused(request);
    EXPECT_THAT(status, Fails(StatusCode::INVALID_ARGUMENT, "INVALID_FIELD")) << text;
    EXPECT_THAT(status.error_message(), HasSubstr(text));
  }
  EXPECT_THAT(Refused(Request("nobody")), Fails(StatusCode::NOT_FOUND, "SESSION_NOT_FOUND"));
  EXPECT_THAT(Refused(Request("nobody/")), Fails(StatusCode::NOT_FOUND, "SESSION_NOT_FOUND"));
  EXPECT_THAT(Refused(v1::WatchStatsRequest()), Fails(StatusCode::INVALID_ARGUMENT, "INVALID_FIELD"));
}

}  // namespace
}  // namespace normserve::integration
