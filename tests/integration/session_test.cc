// Sessions over the wire: clones, many clients, repeats, listings.
#include <grpcpp/client_context.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <thread>

#include "absl/strings/str_cat.h"
#include "tests/integration/raw_stream.h"
#include "tests/integration/server_process.h"
#include "tests/integration/test_client.h"

namespace normserve::integration {
namespace {

using grpc::StatusCode;

constexpr char kForward[] = "/normserve.v1.BatchNormService/Forward";

class SessionTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { server_ = new ServerProcess; }
  static void TearDownTestSuite() { delete server_; }
  void SetUp() override { ASSERT_FALSE(server_->address().empty()) << server_->Log(); }

  v1::Session Clone(const std::string& name, const std::string& clone_name) {
    v1::CloneSessionRequest request;
    request.set_name(name);
    request.set_clone_name(clone_name);
    grpc::ClientContext context;
    v1::Session session;
    EXPECT_THAT(server_->stub().CloneSession(&context, request, &session), Succeeds());
    return session;
  }

  static ServerProcess* server_;
  TestClient client_{server_->stub()};
};

ServerProcess* SessionTest::server_ = nullptr;

double Sum(const v1::Tensor& tensor) {
  const std::vector<float> values = Values(tensor);
  return std::accumulate(values.begin(), values.end(), 0.0);
}

// https://discuss.pytorch.org: 'Inconsistent Batchnorm behavior in eval and training modes'.
TEST_F(SessionTest, TheForumsTwoCopiesHaveEqualStatisticsAndSumsFarApart) {
  client_.Create("forum/bn", 3);
  Clone("forum/bn", "forum/bn1");
  Clone("forum/bn", "forum/bn2");
  std::vector<float> batch = SomeValues(4 * 3 * 32 * 32);
  for (float& value : batch) value = (value + 1) / 4;  // uniform over [0, 1), as torch.rand
  v1::ForwardReply train, eval;
  ASSERT_THAT(client_.Forward(MakeForward("forum/bn1", {4, 3, 32, 32}, batch), &train), Succeeds());
  ASSERT_THAT(client_.Forward(MakeForward("forum/bn2", {4, 3, 32, 32}, batch)), Succeeds());
  ASSERT_THAT(client_.SetMode("forum/bn2", v1::MODE_EVAL), Succeeds());
  ASSERT_THAT(client_.Forward(MakeForward("forum/bn2", {4, 3, 32, 32}, batch), &eval), Succeeds());
  EXPECT_NEAR(Sum(train.output()), 0, 0.01);
  EXPECT_NEAR(Sum(eval.output()), 5800, 150);
  const v1::Session bn1 = client_.Get("forum/bn1"), bn2 = client_.Get("forum/bn2");
  EXPECT_EQ(bn1.statistics().SerializeAsString(), bn2.statistics().SerializeAsString());
  EXPECT_NEAR(bn1.statistics().running_mean(0), 0.05, 0.002);
  EXPECT_NEAR(bn1.statistics().running_var(0), 0.908, 0.002);
}

TEST_F(SessionTest, ACloneIsEqualBitForBitAndIndependentFromThenOn) {
  client_.Create("clone/source", 3);
  ASSERT_THAT(client_.Forward(MakeForward("clone/source", {4, 3, 2}, SomeValues(24))), Succeeds());
  const v1::Session source = client_.Get("clone/source");
  const v1::Session described = Clone("clone/source", "clone/copy");
  const v1::Session copy = client_.Get("clone/copy");
  EXPECT_EQ(copy.statistics().SerializeAsString(), source.statistics().SerializeAsString());
  EXPECT_EQ(copy.parameters().SerializeAsString(), source.parameters().SerializeAsString());
  EXPECT_EQ(copy.config().SerializeAsString(), source.config().SerializeAsString());
  EXPECT_EQ(copy.generation(), 0);
  EXPECT_EQ(described.uid(), copy.uid());
  EXPECT_NE(copy.uid(), source.uid());

  const std::string source_state = client_.StateOf("clone/source");
  ASSERT_THAT(client_.Forward(MakeForward("clone/copy", {4, 3, 2}, SomeValues(24, 9))), Succeeds());
  ASSERT_THAT(client_.SetMode("clone/copy", v1::MODE_EVAL), Succeeds());
  EXPECT_EQ(client_.StateOf("clone/source"), source_state);
  const std::string copy_state = client_.StateOf("clone/copy");
  ASSERT_THAT(client_.Forward(MakeForward("clone/source", {4, 3, 2}, SomeValues(24, 5))), Succeeds());
  EXPECT_EQ(client_.StateOf("clone/copy"), copy_state);
}

TEST_F(SessionTest, ConcurrentClientsLoseNoBatch) {
  constexpr int kClients = 6, kBatches = 40;
  client_.Create("concurrent", 8);
  const v1::ForwardRequest request = MakeForward("concurrent", {4, 8, 16}, SomeValues(512));
  std::vector<std::thread> clients;
  for (int i = 0; i < kClients; ++i) {
    clients.emplace_back([&] {
      const auto stub = v1::BatchNormService::NewStub(server_->NewChannel());
      for (int b = 0; b < kBatches; ++b) {
        grpc::ClientContext context;
        v1::ForwardReply reply;
        EXPECT_THAT(stub->Forward(&context, request, &reply), Succeeds());
        // Its own update is in the numbers that it sees.
        EXPECT_GT(reply.num_batches_tracked(), b);
        EXPECT_LE(reply.snapshot_generation(), reply.generation() - 1);
      }
    });
  }
  // Evaluation runs beside it.
  v1::ForwardRequest evaluation = request;
  evaluation.set_mode(v1::MODE_EVAL);
  for (int i = 0; i < kBatches; ++i) EXPECT_THAT(client_.Forward(evaluation), Succeeds());
  for (std::thread& client : clients) client.join();
  const v1::Session session = client_.Get("concurrent");
  EXPECT_EQ(session.num_batches_tracked(), kClients * kBatches);
  EXPECT_EQ(session.generation(), kClients * kBatches);
  // All batches were the same, so the order does not matter.
  v1::ForwardReply reply;
  v1::ForwardRequest with_moments = evaluation;
  with_moments.set_return_batch_moments(true);
  ASSERT_THAT(client_.Forward(with_moments, &reply), Succeeds());
  EXPECT_NEAR(session.statistics().running_mean(3), reply.batch_moments().mean(3), 1e-6);
}

TEST_F(SessionTest, ConcurrentCopiesOfOneRequestCommitOnceAndAnswerAlike) {
  constexpr int kCopies = 8;
  client_.Create("copies", 4);
  for (int round = 0; round < 5; ++round) {
    v1::ForwardRequest request =
        MakeForward("copies", {16, 4, 64}, SomeValues(4096, static_cast<uint32_t>(round)), absl::StrCat("id", round));
    request.set_expected_generation(round);
    request.set_return_batch_moments(true);
    std::vector<v1::ForwardReply> replies(kCopies);
    std::vector<std::thread> clients;
    for (int i = 0; i < kCopies; ++i) {
      clients.emplace_back([&, i] {
        const auto stub = v1::BatchNormService::NewStub(server_->NewChannel());
        grpc::ClientContext context;
        EXPECT_THAT(stub->Forward(&context, request, &replies[static_cast<size_t>(i)]), Succeeds());
      });
    }
    for (std::thread& client : clients) client.join();
    for (const v1::ForwardReply& reply : replies) {
      EXPECT_EQ(reply.SerializeAsString(), replies[0].SerializeAsString());
      EXPECT_EQ(reply.generation(), round + 1);
    }
    EXPECT_EQ(client_.Get("copies").num_batches_tracked(), round + 1);
  }
}

TEST_F(SessionTest, ARepeatAfterALostReplyGivesTheFirstAnswerAndChangesNothing) {
  client_.Create("lost", 3);
  // 3 MiB, so that the reply waits for a reader that never comes.
  const v1::ForwardRequest request = MakeForward("lost", {1 << 18, 3}, SomeValues(3 << 18), "lost-1");
  {
    RawStream stream(server_->NewChannel(), kForward);
    ASSERT_TRUE(stream.WriteLast(request.SerializeAsString()));
    while (client_.Get("lost").num_batches_tracked() == 0) {
    }
    stream.Cancel();
  }
  ASSERT_THAT(client_.Forward(MakeForward("lost", {4, 3}, SomeValues(12))), Succeeds());
  ASSERT_THAT(client_.SetMode("lost", v1::MODE_EVAL), Succeeds());
  const std::string before = client_.StateOf("lost");
  v1::ForwardReply first, second;
  ASSERT_THAT(client_.Forward(request, &first), Succeeds());
  ASSERT_THAT(client_.Forward(request, &second), Succeeds());
  EXPECT_EQ(first.generation(), 1);
  EXPECT_EQ(first.num_batches_tracked(), 1);
  EXPECT_EQ(first.update(), v1::UPDATE_RUNNING);
  EXPECT_EQ(first.SerializeAsString(), second.SerializeAsString());
  EXPECT_EQ(client_.StateOf("lost"), before);
}

TEST_F(SessionTest, ARepeatedForwardEqualsTheFirstToTheBit) {
  client_.Create("repeat", 5);
  v1::ForwardRequest request = MakeForward("repeat", {7, 5, 11}, SomeValues(385), "r");
  request.set_return_batch_moments(true);
  v1::ForwardReply first, repeat;
  ASSERT_THAT(client_.Forward(request, &first), Succeeds());
  ASSERT_THAT(client_.Forward(MakeForward("repeat", {7, 5, 11}, SomeValues(385, 3))), Succeeds());
  ASSERT_THAT(client_.Forward(request, &repeat), Succeeds());
  EXPECT_EQ(first.SerializeAsString(), repeat.SerializeAsString());
  const std::string before = client_.StateOf("repeat");
  EXPECT_THAT(client_.Forward(MakeForward("repeat", {7, 5, 11}, SomeValues(385, 4), "r")),
              Fails(StatusCode::INVALID_ARGUMENT, "REQUEST_ID_REUSED"));
  EXPECT_THAT(client_.SetMode("repeat", v1::MODE_EVAL, "r"), Fails(StatusCode::INVALID_ARGUMENT, "REQUEST_ID_REUSED"));
  EXPECT_EQ(client_.StateOf("repeat"), before);
}

TEST_F(SessionTest, ACancelledForwardIsCommittedWholeOrNotAtAll) {
  client_.Create("cancelled", 3);
  const std::vector<float> batch = SomeValues(3 << 16);
  const v1::ForwardRequest request = MakeForward("cancelled", {1 << 16, 3}, batch);
  const std::string bytes = request.SerializeAsString();
  for (int i = 0; i < 20; ++i) {
    RawStream stream(server_->channel(), kForward);
    std::thread canceller([&] { stream.Cancel(); });
    stream.WriteLast(bytes);
    canceller.join();
    std::string reply;
    stream.Read(&reply);
    stream.Finish();
  }
  // Whatever was committed has left its count, its generation and its fold, and nothing else.
  ASSERT_THAT(client_.Forward(request), Succeeds());
  const v1::Session session = client_.Get("cancelled");
  EXPECT_EQ(session.generation(), session.num_batches_tracked());
  v1::ForwardReply reply;
  v1::ForwardRequest with_moments = request;
  with_moments.set_mode(v1::MODE_EVAL);
  with_moments.set_return_batch_moments(true);
  ASSERT_THAT(client_.Forward(with_moments, &reply), Succeeds());
  const double expected = reply.batch_moments().mean(0) * (1 - std::pow(0.9, session.num_batches_tracked()));
  EXPECT_NEAR(session.statistics().running_mean(0), expected, 1e-9);
}

TEST_F(SessionTest, ADeadlineThatHasPassedIsNotCommitted) {
  client_.Create("deadline", 3);
  const std::string before = client_.StateOf("deadline");
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() - std::chrono::seconds(1));
  v1::ForwardReply reply;
  EXPECT_EQ(server_->stub().Forward(&context, MakeForward("deadline", {4, 3}, SomeValues(12)), &reply).error_code(),
            StatusCode::DEADLINE_EXCEEDED);
  EXPECT_EQ(client_.StateOf("deadline"), before);
}

TEST_F(SessionTest, ListingsArePagedSortedAndOfWholeSegments) {
  for (const char* name : {"list/b", "list/a", "list/a/1", "list2/x", "list/c"}) client_.Create(name, 2);
  std::vector<std::string> names;
  v1::ListSessionsRequest request;
  request.set_prefix("list");
  request.set_page_size(2);
  do {
    grpc::ClientContext context;
    v1::ListSessionsReply reply;
    ASSERT_THAT(server_->stub().ListSessions(&context, request, &reply), Succeeds());
    for (const v1::Session& session : reply.sessions()) {
      names.push_back(session.name());
      EXPECT_FALSE(session.has_statistics());
      EXPECT_EQ(session.config().num_features(), 2);
    }
    request.set_page_token(reply.next_page_token());
  } while (!request.page_token().empty());
  EXPECT_EQ(names, std::vector<std::string>({"list/a", "list/a/1", "list/b", "list/c"}));

  grpc::ClientContext first_context, other_context;
  v1::ListSessionsReply reply;
  ASSERT_THAT(server_->stub().ListSessions(&first_context, request, &reply), Succeeds());
  request.set_page_token(reply.next_page_token());
  request.set_prefix("list2");
  EXPECT_THAT(server_->stub().ListSessions(&other_context, request, &reply),
              Fails(StatusCode::INVALID_ARGUMENT, "INVALID_FIELD"));
}

TEST_F(SessionTest, StatsOfAChannelRangeAreThoseOfTheWhole) {
  client_.Create("stats", 10);
  ASSERT_THAT(client_.Forward(MakeForward("stats", {4, 10, 3}, SomeValues(120))), Succeeds());
  v1::GetStatsRequest request;
  request.set_name("stats");
  v1::GetStatsReply all, some;
  grpc::ClientContext all_context, some_context;
  ASSERT_THAT(server_->stub().GetStats(&all_context, request, &all), Succeeds());
  request.mutable_channel_range()->set_first(7);
  request.mutable_channel_range()->set_count(2);
  ASSERT_THAT(server_->stub().GetStats(&some_context, request, &some), Succeeds());
  ASSERT_EQ(all.sessions_size(), 1);
  EXPECT_EQ(all.sessions(0).statistics().running_mean_size(), 10);
  EXPECT_EQ(all.sessions(0).generation(), 1);
  EXPECT_EQ(some.sessions(0).first_channel(), 7);
  ASSERT_EQ(some.sessions(0).statistics().running_var_size(), 2);
  EXPECT_EQ(some.sessions(0).statistics().running_var(1), all.sessions(0).statistics().running_var(8));
}

TEST_F(SessionTest, SetParametersAreUsedAndARepeatUsesThoseOfTheFirst) {
  client_.Create("parameters", 2);
  const v1::ForwardRequest request = MakeForward("parameters", {3, 2}, SomeValues(6), "p");
  v1::ForwardReply first, repeat, fresh;
  ASSERT_THAT(client_.Forward(request, &first), Succeeds());
  v1::SetParametersRequest parameters;
  parameters.set_name("parameters");
  for (const float bias : {10.0f, 20.0f}) parameters.mutable_parameters()->add_bias(bias);
  v1::Session session;
  grpc::ClientContext context;
  ASSERT_THAT(server_->stub().SetParameters(&context, parameters, &session), Succeeds());
  EXPECT_EQ(session.generation(), 2);
  ASSERT_THAT(client_.Forward(request, &repeat), Succeeds());
  EXPECT_EQ(first.SerializeAsString(), repeat.SerializeAsString());
  ASSERT_THAT(client_.Forward(MakeForward("parameters", {3, 2}, SomeValues(6)), &fresh), Succeeds());
  EXPECT_NEAR(Values(fresh.output())[1], Values(first.output())[1] + 20, 1e-5);
}

}  // namespace
}  // namespace normserve::integration
