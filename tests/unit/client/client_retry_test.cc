// What the client repeats, and what it must not.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "normserve/client.h"
#include "normserve/mock_connection.h"

namespace normserve::client {
namespace {

using ::testing::_;
using ::testing::Return;

// Time that passes only by sleeping.
class FakeTime {
 public:
  Clock AsClock() {
    return {.now = [this] { return now_; },
            .sleep =
                [this](absl::Duration duration) {
                  slept.push_back(duration);
                  now_ += duration;
                }};
  }
  void Advance(absl::Duration duration) { now_ += duration; }
  absl::Time now() const { return now_; }

  std::vector<absl::Duration> slept;

 private:
  absl::Time now_ = absl::FromUnixSeconds(1'000'000);
};

class ClientRetryTest : public ::testing::Test {
 protected:
  Client MakeClient(ClientOptions options = {}) {
    options.clock = time_.AsClock();
    return Client(connection_, options);
  }

  FakeTime time_;
  std::shared_ptr<MockConnection> connection_ = std::make_shared<MockConnection>();
};

const absl::Status kUnavailable = absl::UnavailableError("connection refused");

absl::Status Exhausted(absl::Duration retry_delay) {
  absl::Status status = absl::ResourceExhaustedError("too many bytes in flight");
  SetRetryDelay(retry_delay, status);
  return status;
}

TEST_F(ClientRetryTest, ChangeIsRepeatedWithTheSameRandomRequestId) {
  std::set<std::string> ids;
  int attempts = 0;
  EXPECT_CALL(*connection_, SetMode).WillRepeatedly([&](const SetModeRequest& request, absl::Time) {
    ids.insert(request.guards.request_id);
    ++attempts;
    using Sessions = std::vector<Session>;
    return attempts < 4 ? absl::StatusOr<Sessions>(kUnavailable) : Sessions{{.name = "bn", .mode = Mode::kEval}};
  });
  const absl::StatusOr<Session> session = MakeClient().Attach("bn").Eval();
  ASSERT_TRUE(session.ok()) << session.status();
  EXPECT_EQ(session->mode, Mode::kEval);
  EXPECT_EQ(attempts, 4);
  ASSERT_EQ(ids.size(), 1u);
  EXPECT_THAT(*ids.begin(),
              ::testing::MatchesRegex("[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"));
}

TEST_F(ClientRetryTest, CallThatAServerCancelsAsItShutsDownIsRepeatedWithTheSameRequestId) {
  std::set<std::string> ids;
  EXPECT_CALL(*connection_, Forward)
      .WillOnce([&](const ForwardRequest& request, absl::Time) {
        ids.insert(request.guards.request_id);
        return absl::CancelledError("server shuts down");
      })
      .WillOnce([&](const ForwardRequest& request, absl::Time) {
        ids.insert(request.guards.request_id);
        return ForwardResult{};
      });
  EXPECT_CALL(*connection_, GetStats)
      .WillOnce(Return(absl::CancelledError("server shuts down")))
      .WillOnce(Return(std::vector<SessionStats>(1)));
  const BatchNorm bn = MakeClient().Attach("bn");
  EXPECT_TRUE(bn.Forward(Tensor{}).ok());
  EXPECT_EQ(ids.size(), 1u);
  EXPECT_TRUE(bn.Stats().ok());
}

TEST_F(ClientRetryTest, CancelledChangeWithoutARequestIdIsNotRepeated) {
  EXPECT_CALL(*connection_, Forward).WillOnce(Return(absl::CancelledError("server shuts down")));
  EXPECT_TRUE(absl::IsCancelled(MakeClient().Attach("bn").Forward(Tensor{}, {.call = {.request_id = ""}}).status()));
}

TEST_F(ClientRetryTest, CancelledCallIsNotRepeatedBeyondItsDeadline) {
  EXPECT_CALL(*connection_, GetStats).WillOnce([this](const GetStatsRequest&, absl::Time deadline) {
    time_.Advance(deadline - time_.now());
    return absl::CancelledError("server shuts down");
  });
  EXPECT_TRUE(absl::IsCancelled(MakeClient().Attach("bn").Stats().status()));
  EXPECT_TRUE(time_.slept.empty());
}

TEST_F(ClientRetryTest, EachChangeHasARequestIdOfItsOwn) {
  std::set<std::string> ids;
  EXPECT_CALL(*connection_, SetMode).WillRepeatedly([&](const SetModeRequest& request, absl::Time) {
    ids.insert(request.guards.request_id);
    return std::vector<Session>(1);
  });
  const BatchNorm bn = MakeClient().Attach("bn");
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(bn.Train().ok());
  EXPECT_EQ(ids.size(), 100u);
}

TEST_F(ClientRetryTest, RequestIdOfTheCallerIsSentUnchanged) {
  EXPECT_CALL(*connection_, DeleteSession).WillOnce([](const DeleteSessionRequest& request, absl::Time) {
    EXPECT_EQ(request.guards.request_id, "mine");
    EXPECT_EQ(request.guards.expected_generation, 7);
    EXPECT_EQ(request.guards.expected_uid, "u1");
    return std::vector<DeletedSession>(1);
  });
  EXPECT_TRUE(
      MakeClient().Attach("bn").Delete({.request_id = "mine", .expected_generation = 7, .expected_uid = "u1"}).ok());
}

TEST_F(ClientRetryTest, NoChangeIsRepeatedWithoutARequestId) {
  const CallOptions unguarded{.request_id = ""};
  EXPECT_CALL(*connection_, CreateSession).WillOnce(Return(kUnavailable));
  EXPECT_CALL(*connection_, CloneSession).WillOnce(Return(kUnavailable));
  EXPECT_CALL(*connection_, SetMode).WillOnce(Return(kUnavailable));
  EXPECT_CALL(*connection_, SetParameters).WillOnce(Return(kUnavailable));
  EXPECT_CALL(*connection_, DeleteSession).WillOnce(Return(kUnavailable));
  EXPECT_CALL(*connection_, SnapshotState).WillOnce(Return(kUnavailable));
  EXPECT_CALL(*connection_, RestoreState).WillOnce(Return(kUnavailable));
  EXPECT_CALL(*connection_, DeleteSnapshot).WillOnce(Return(kUnavailable));
  EXPECT_CALL(*connection_, Forward).Times(3).WillRepeatedly(Return(kUnavailable));
  const Client client = MakeClient();
  const BatchNorm bn = client.Attach("bn");
  EXPECT_EQ(client.CreateSession({}, unguarded).status(), kUnavailable);
  EXPECT_EQ(bn.Clone("copy", unguarded).status(), kUnavailable);
  EXPECT_EQ(bn.Eval(unguarded).status(), kUnavailable);
  EXPECT_EQ(bn.SetParameters({}, unguarded).status(), kUnavailable);
  EXPECT_EQ(bn.Delete(unguarded), kUnavailable);
  EXPECT_EQ(bn.Snapshot("before", unguarded).status(), kUnavailable);
  EXPECT_EQ(bn.Restore("before", unguarded).status(), kUnavailable);
  EXPECT_EQ(bn.DeleteSnapshot("before", unguarded), kUnavailable);
  // The session may be in TRAIN, and an update of its own beats the mode of the call.
  EXPECT_EQ(bn.Forward(Tensor{}, {.call = unguarded}).status(), kUnavailable);
  EXPECT_EQ(bn.Forward(Tensor{}, {.mode = Mode::kTrain, .call = unguarded}).status(), kUnavailable);
  EXPECT_EQ(bn.Forward(Tensor{}, {.mode = Mode::kEval, .update = Update::kRunning, .call = unguarded}).status(),
            kUnavailable);
  EXPECT_TRUE(time_.slept.empty());
}

TEST_F(ClientRetryTest, ForwardThatSaysItChangesNothingIsRepeatedWithoutARequestId) {
  EXPECT_CALL(*connection_, Forward)
      .WillOnce(Return(kUnavailable))
      .WillOnce(Return(ForwardResult{}))
      .WillOnce(Return(kUnavailable))
      .WillOnce(Return(ForwardResult{}));
  const BatchNorm bn = MakeClient().Attach("bn");
  EXPECT_TRUE(bn.Forward(Tensor{}, {.mode = Mode::kEval, .call = {.request_id = ""}}).ok());
  EXPECT_TRUE(bn.Forward(Tensor{}, {.update = Update::kNone, .call = {.request_id = ""}}).ok());
}

TEST_F(ClientRetryTest, ReadsAreRepeated) {
  EXPECT_CALL(*connection_, GetSession).WillOnce(Return(kUnavailable)).WillOnce(Return(Session{.name = "bn"}));
  EXPECT_CALL(*connection_, GetStats).WillOnce(Return(kUnavailable)).WillOnce(Return(std::vector<SessionStats>(1)));
  EXPECT_CALL(*connection_, GetServerInfo).WillOnce(Return(kUnavailable)).WillOnce(Return(ServerInfo{}));
  EXPECT_CALL(*connection_, CheckHealth).WillOnce(Return(kUnavailable)).WillOnce(Return(Health::kServing));
  const Client client = MakeClient();
  const absl::StatusOr<BatchNorm> bn = client.Open("bn");
  ASSERT_TRUE(bn.ok());
  EXPECT_TRUE(bn->Stats().ok());
  EXPECT_TRUE(client.GetServerInfo().ok());
  EXPECT_TRUE(client.CheckHealth().ok());
}

TEST_F(ClientRetryTest, OnlyErrorsThatMayPassAreRepeated) {
  for (const absl::Status& status :
       {absl::InvalidArgumentError("x"), absl::NotFoundError("x"), absl::AbortedError("x"), absl::InternalError("x"),
        absl::DeadlineExceededError("x"), absl::FailedPreconditionError("x"),
        // A limit that waiting does not move carries no RetryInfo.
        absl::ResourceExhaustedError("x")}) {
    EXPECT_CALL(*connection_, GetStats).WillOnce(Return(status));
    EXPECT_EQ(MakeClient().Attach("bn").Stats().status(), status);
  }
  EXPECT_TRUE(time_.slept.empty());
}

TEST_F(ClientRetryTest, ServersRetryDelayIsTheLeastThatIsWaited) {
  EXPECT_CALL(*connection_, GetStats)
      .WillOnce(Return(Exhausted(absl::Milliseconds(2500))))
      .WillOnce(Return(std::vector<SessionStats>(1)));
  EXPECT_TRUE(MakeClient().Attach("bn").Stats().ok());
  ASSERT_EQ(time_.slept.size(), 1u);
  EXPECT_GE(time_.slept[0], absl::Milliseconds(2500));
}

TEST_F(ClientRetryTest, WaitsGrowWithJitterUpToTheMaximum) {
  EXPECT_CALL(*connection_, GetStats).WillRepeatedly(Return(kUnavailable));
  const RetryPolicy policy{
      .max_attempts = 8, .initial_backoff = absl::Milliseconds(100), .max_backoff = absl::Seconds(1), .multiplier = 2};
  EXPECT_EQ(MakeClient({.timeout = absl::Minutes(5), .retry = policy}).Attach("bn").Stats().status(), kUnavailable);
  ASSERT_EQ(time_.slept.size(), 7u);
  std::set<absl::Duration> shares;
  absl::Duration whole = policy.initial_backoff;
  for (const absl::Duration slept : time_.slept) {
    EXPECT_GE(slept, whole / 2);
    EXPECT_LE(slept, whole);
    shares.insert(absl::Seconds(absl::FDivDuration(slept, whole)));
    whole = std::min(whole * 2, policy.max_backoff);
  }
  EXPECT_GT(shares.size(), 1u);
}

TEST_F(ClientRetryTest, AllAttemptsShareOneDeadlineAndEndBeforeIt) {
  const absl::Time deadline = time_.now() + absl::Seconds(30);
  EXPECT_CALL(*connection_, GetStats(_, deadline)).Times(::testing::AtLeast(5)).WillRepeatedly(Return(kUnavailable));
  EXPECT_EQ(MakeClient().Attach("bn").Stats().status(), kUnavailable);
  EXPECT_LT(time_.now(), deadline);
  EXPECT_GT(time_.now(), deadline - absl::Seconds(5));
}

TEST_F(ClientRetryTest, TimeoutOfTheCallBeatsTheClients) {
  EXPECT_CALL(*connection_, Forward(_, time_.now() + absl::Milliseconds(50))).WillOnce(Return(ForwardResult{}));
  EXPECT_CALL(*connection_, GetServerInfo(absl::InfiniteFuture())).WillOnce(Return(ServerInfo{}));
  const Client client = MakeClient();
  EXPECT_TRUE(client.Attach("bn").Forward(Tensor{}, {.call = {.timeout = absl::Milliseconds(50)}}).ok());
  EXPECT_TRUE(client.GetServerInfo({.timeout = absl::InfiniteDuration()}).ok());
}

TEST_F(ClientRetryTest, RetryDelayBeyondTheDeadlineEndsTheCallAtOnce) {
  EXPECT_CALL(*connection_, GetStats).WillOnce(Return(Exhausted(absl::Minutes(1))));
  EXPECT_TRUE(absl::IsResourceExhausted(MakeClient().Attach("bn").Stats().status()));
  EXPECT_TRUE(time_.slept.empty());
}

TEST_F(ClientRetryTest, ALimitThatWaitingDoesNotLiftIsNotWaitedFor) {
  for (const char* limit : {"max_sessions", "max_snapshots", "max_state_bytes", "max_message_bytes", "max_collections",
                            "max_collection_parts"}) {
    absl::Status full = Exhausted(absl::Seconds(1));
    SetErrorInfo({.reason = "LIMIT_REACHED", .metadata = {{"limit", limit}}}, full);
    EXPECT_CALL(*connection_, CreateSession).WillOnce(Return(full));
    EXPECT_EQ(MakeClient().CreateSession({.name = "bn", .config = {.num_features = 1}}).status(), full);
  }
  EXPECT_TRUE(time_.slept.empty());
}

TEST_F(ClientRetryTest, ListReadsEveryPageWithinOneDeadline) {
  const absl::Time deadline = time_.now() + absl::Seconds(30);
  EXPECT_CALL(*connection_, ListSessions(_, deadline))
      .WillOnce([this](const ListSessionsRequest& request, absl::Time) {
        EXPECT_EQ(request.prefix, "net/");
        EXPECT_EQ(request.page_token, "");
        time_.Advance(absl::Seconds(10));
        return ListSessionsReply{.sessions = {{.name = "net/a"}, {.name = "net/b"}}, .next_page_token = "p2"};
      })
      .WillOnce(Return(kUnavailable))
      .WillOnce([](const ListSessionsRequest& request, absl::Time) {
        EXPECT_EQ(request.page_token, "p2");
        return ListSessionsReply{.sessions = {{.name = "net/c"}}};
      });
  const absl::StatusOr<std::vector<Session>> sessions = MakeClient().ListSessions("net/");
  ASSERT_TRUE(sessions.ok());
  ASSERT_EQ(sessions->size(), 3u);
  EXPECT_EQ((*sessions)[2].name, "net/c");
}

TEST_F(ClientRetryTest, ChangesOfSnapshotsAreRepeatedWithTheSameRequestId) {
  std::vector<std::string> ids;
  const auto unavailable_once = [&](auto result) {
    return [&ids, result](const auto& request, absl::Time) {
      EXPECT_EQ(request.name, "bn");
      EXPECT_EQ(request.snapshot, "before");
      EXPECT_EQ(request.guards.expected_generation, 7);
      EXPECT_EQ(request.guards.expected_uid, "u1");
      ids.push_back(request.guards.request_id);
      return ids.size() % 2 == 1 ? std::decay_t<decltype(result)>(kUnavailable) : result;
    };
  };
  EXPECT_CALL(*connection_, SnapshotState)
      .Times(2)
      .WillRepeatedly(unavailable_once(absl::StatusOr<std::vector<Snapshot>>({Snapshot{.snapshot = "before"}})));
  EXPECT_CALL(*connection_, RestoreState)
      .Times(2)
      .WillRepeatedly(unavailable_once(absl::StatusOr<std::vector<Session>>({Session{.generation = 8}})));
  EXPECT_CALL(*connection_, DeleteSnapshot).Times(2).WillRepeatedly(unavailable_once(absl::OkStatus()));
  const BatchNorm bn = MakeClient().Attach("bn");
  const CallOptions guarded{.expected_generation = 7, .expected_uid = "u1"};
  const absl::StatusOr<Snapshot> snapshot = bn.Snapshot("before", guarded);
  ASSERT_TRUE(snapshot.ok()) << snapshot.status();
  EXPECT_EQ(snapshot->snapshot, "before");
  const absl::StatusOr<Session> session = bn.Restore("before", guarded);
  ASSERT_TRUE(session.ok()) << session.status();
  EXPECT_EQ(session->generation, 8);
  EXPECT_TRUE(bn.DeleteSnapshot("before", guarded).ok());
  ASSERT_EQ(ids.size(), 6u);
  for (size_t call = 0; call < 6; call += 2) EXPECT_EQ(ids[call], ids[call + 1]);
  EXPECT_EQ((std::set<std::string>(ids.begin(), ids.end())).size(), 3u);
  EXPECT_EQ(std::count(ids.begin(), ids.end(), ""), 0);
}

TEST_F(ClientRetryTest, SnapshotsReadsEveryPageWithinOneDeadline) {
  const absl::Time deadline = time_.now() + absl::Seconds(30);
  EXPECT_CALL(*connection_, ListSnapshots(_, deadline))
      .WillOnce([this](const ListSnapshotsRequest& request, absl::Time) {
        EXPECT_EQ(request.name, "bn");
        EXPECT_EQ(request.page_token, "");
        time_.Advance(absl::Seconds(10));
        return ListSnapshotsReply{.snapshots = {{.snapshot = "a"}, {.snapshot = "b"}}, .next_page_token = "p2"};
      })
      .WillOnce(Return(kUnavailable))
      .WillOnce([](const ListSnapshotsRequest& request, absl::Time) {
        EXPECT_EQ(request.name, "bn");
        EXPECT_EQ(request.page_token, "p2");
        return ListSnapshotsReply{.snapshots = {{.snapshot = "c"}}};
      });
  const absl::StatusOr<std::vector<Snapshot>> snapshots = MakeClient().Attach("bn").Snapshots();
  ASSERT_TRUE(snapshots.ok()) << snapshots.status();
  ASSERT_EQ(snapshots->size(), 3u);
  EXPECT_EQ((*snapshots)[2].snapshot, "c");
}

TEST_F(ClientRetryTest, EveryPageOfAListIsFilteredByTheSameLabels) {
  const Labels labels = {{"team", "vision"}, {"run", "7"}};
  EXPECT_CALL(*connection_, ListSessions)
      .WillOnce([&](const ListSessionsRequest& request, absl::Time) {
        EXPECT_EQ(request.prefix, "net/");
        EXPECT_EQ(request.label_filter, labels);
        return ListSessionsReply{.sessions = {{.name = "net/a"}}, .next_page_token = "p2"};
      })
      .WillOnce([&](const ListSessionsRequest& request, absl::Time) {
        EXPECT_EQ(request.page_token, "p2");
        EXPECT_EQ(request.prefix, "net/");
        EXPECT_EQ(request.label_filter, labels);
        return ListSessionsReply{.sessions = {{.name = "net/c"}}};
      });
  const absl::StatusOr<std::vector<Session>> sessions = MakeClient().ListSessions({.prefix = "net/", .labels = labels});
  ASSERT_TRUE(sessions.ok());
  EXPECT_EQ(sessions->size(), 2u);
}

TEST_F(ClientRetryTest, CloneAndCreateGiveHandlesOfTheNamesTheServerChose) {
  EXPECT_CALL(*connection_, CreateSession).WillOnce(Return(Session{.name = "made-1"}));
  EXPECT_CALL(*connection_, CloneSession).WillOnce([](const CloneSessionRequest& request, absl::Time) {
    EXPECT_EQ(request.name, "made-1");
    EXPECT_EQ(request.clone_name, "");
    return Session{.name = "made-2"};
  });
  const absl::StatusOr<BatchNorm> bn = MakeClient().CreateSession({.config = {.num_features = 3}});
  ASSERT_TRUE(bn.ok());
  EXPECT_EQ(bn->name(), "made-1");
  const absl::StatusOr<BatchNorm> copy = bn->Clone();
  ASSERT_TRUE(copy.ok());
  EXPECT_EQ(copy->name(), "made-2");
}

}  // namespace
}  // namespace normserve::client
