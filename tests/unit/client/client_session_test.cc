// What sessions and snapshots are on the wire: the client over a real channel, against a service in this process that
// keeps what it was asked and answers what it is told.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "normserve/client.h"
#include "normserve/v1/batch_norm_service.grpc.pb.h"

namespace normserve::client {
namespace {

using ::testing::Pair;
using ::testing::UnorderedElementsAre;

class ScriptedService : public v1::BatchNormService::Service {
 public:
  grpc::Status CreateSession(grpc::ServerContext*, const v1::CreateSessionRequest* request,
                             v1::Session* reply) override {
    create_request = *request;
    *reply = session;
    return grpc::Status::OK;
  }

  grpc::Status GetSession(grpc::ServerContext*, const v1::GetSessionRequest*, v1::Session* reply) override {
    *reply = session;
    return grpc::Status::OK;
  }

  grpc::Status ListSessions(grpc::ServerContext*, const v1::ListSessionsRequest* request,
                            v1::ListSessionsReply* reply) override {
    list_request = *request;
    *reply->add_sessions() = session;
    return grpc::Status::OK;
  }

  grpc::Status GetServerInfo(grpc::ServerContext*, const v1::GetServerInfoRequest*, v1::ServerInfo* reply) override {
    *reply = server_info;
    return grpc::Status::OK;
  }

  v1::CreateSessionRequest create_request;
  v1::ListSessionsRequest list_request;
  v1::Session session;
  v1::ServerInfo server_info;
};

class ClientSessionTest : public ::testing::Test {
 protected:
  void SetUp() override {
    int port = 0;
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
    absl::StatusOr<Client> client = Client::Connect("127.0.0.1:" + std::to_string(port));
    ASSERT_TRUE(client.ok());
    client_ = *client;
    service_.session.set_name("bn");
  }

  void TearDown() override { server_->Shutdown(); }

  ScriptedService service_;
  std::unique_ptr<grpc::Server> server_;
  std::optional<Client> client_;
};

TEST_F(ClientSessionTest, DurabilityIsLeftToTheServerUnlessItIsAskedFor) {
  ASSERT_TRUE(client_->CreateSession({.config = {.num_features = 3}}).ok());
  EXPECT_EQ(service_.create_request.config().durability(), v1::DURABILITY_UNSPECIFIED);
  for (const auto& [asked, sent] :
       {std::pair{Durability::kNone, v1::DURABILITY_NONE}, std::pair{Durability::kCommit, v1::DURABILITY_COMMIT},
        std::pair{Durability::kFlush, v1::DURABILITY_FLUSH}}) {
    ASSERT_TRUE(client_->CreateSession({.config = {.num_features = 3, .durability = asked}}).ok());
    EXPECT_EQ(service_.create_request.config().durability(), sent);
  }
}

TEST_F(ClientSessionTest, LabelsAreSentWithTheConfig) {
  ASSERT_TRUE(client_->CreateSession({.config = {.num_features = 3, .labels = {{"team", "vision"}, {"x", ""}}}}).ok());
  EXPECT_THAT(service_.create_request.config().labels(), UnorderedElementsAre(Pair("team", "vision"), Pair("x", "")));
}

TEST_F(ClientSessionTest, SessionTellsLevelLabelsAndNumberOfSnapshots) {
  service_.session.mutable_config()->set_durability(v1::DURABILITY_FLUSH);
  (*service_.session.mutable_config()->mutable_labels())["team"] = "vision";
  service_.session.set_durability(v1::DURABILITY_COMMIT);
  service_.session.set_num_snapshots(2);
  const absl::StatusOr<Session> session = client_->Attach("bn").Describe();
  ASSERT_TRUE(session.ok()) << session.status();
  EXPECT_EQ(session->config.durability, Durability::kFlush);
  EXPECT_EQ(session->config.labels, (Labels{{"team", "vision"}}));
  EXPECT_EQ(session->durability, Durability::kCommit);
  EXPECT_EQ(session->num_snapshots, 2);
}

TEST_F(ClientSessionTest, LevelThatIsNotToldOrHasNoNameHereIsNothing) {
  absl::StatusOr<Session> session = client_->Attach("bn").Describe();
  ASSERT_TRUE(session.ok());
  EXPECT_EQ(session->durability, std::nullopt);
  service_.session.set_durability(static_cast<v1::Durability>(99));
  session = client_->Attach("bn").Describe();
  ASSERT_TRUE(session.ok());
  EXPECT_EQ(session->durability, std::nullopt);
}

TEST_F(ClientSessionTest, ListAsksForPrefixAndLabels) {
  const absl::StatusOr<std::vector<Session>> sessions =
      client_->ListSessions({.prefix = "net/", .labels = {{"team", "vision"}, {"run", "7"}}});
  ASSERT_TRUE(sessions.ok()) << sessions.status();
  EXPECT_EQ(service_.list_request.prefix(), "net/");
  EXPECT_THAT(service_.list_request.label_filter(), UnorderedElementsAre(Pair("team", "vision"), Pair("run", "7")));
  ASSERT_TRUE(client_->ListSessions("net/").ok());
  EXPECT_THAT(service_.list_request.label_filter(), ::testing::IsEmpty());
}

TEST_F(ClientSessionTest, ServerTellsItsDefaultLevelAndHowManySnapshotsItKeeps) {
  service_.server_info.set_default_durability(v1::DURABILITY_COMMIT);
  service_.server_info.mutable_limits()->set_max_snapshots(16);
  const absl::StatusOr<ServerInfo> info = client_->GetServerInfo();
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->default_durability, Durability::kCommit);
  EXPECT_EQ(info->limits.max_snapshots, 16);
}

}  // namespace
}  // namespace normserve::client
