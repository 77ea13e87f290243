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

  grpc::Status SnapshotState(grpc::ServerContext* context, const v1::SnapshotStateRequest* request,
                             v1::SnapshotStateReply* reply) override {
    session_key = SessionKey(context);
    snapshot_request = *request;
    *reply->mutable_snapshots() = snapshots;
    return grpc::Status::OK;
  }

  grpc::Status RestoreState(grpc::ServerContext* context, const v1::RestoreStateRequest* request,
                            v1::RestoreStateReply* reply) override {
    session_key = SessionKey(context);
    restore_request = *request;
    if (!session.name().empty()) *reply->add_sessions() = session;
    return grpc::Status::OK;
  }

  grpc::Status ListSnapshots(grpc::ServerContext* context, const v1::ListSnapshotsRequest* request,
                             v1::ListSnapshotsReply* reply) override {
    session_key = SessionKey(context);
    list_snapshots_requests.push_back(*request);
    *reply->mutable_snapshots() = snapshots;
    if (request->page_token().empty()) reply->set_next_page_token("p2");
    return grpc::Status::OK;
  }

  grpc::Status DeleteSnapshot(grpc::ServerContext* context, const v1::DeleteSnapshotRequest* request,
                              v1::DeleteSnapshotReply*) override {
    session_key = SessionKey(context);
    delete_snapshot_request = *request;
    return grpc::Status::OK;
  }

  v1::CreateSessionRequest create_request;
  v1::ListSessionsRequest list_request;
  v1::SnapshotStateRequest snapshot_request;
  v1::RestoreStateRequest restore_request;
  std::vector<v1::ListSnapshotsRequest> list_snapshots_requests;
  v1::DeleteSnapshotRequest delete_snapshot_request;
  std::string session_key;  // what the last call about snapshots was routed by
  v1::Session session;      // without a name: replies about one hold none
  google::protobuf::RepeatedPtrField<v1::Snapshot> snapshots;
  v1::ServerInfo server_info;

 private:
  static std::string SessionKey(grpc::ServerContext* context) {
    const auto found = context->client_metadata().find("normserve-session");
    if (found == context->client_metadata().end()) return "";
    return std::string(found->second.data(), found->second.size());
  }
};

v1::Snapshot SnapshotMessage() {
  v1::Snapshot snapshot;
  snapshot.set_name("net/bn");
  snapshot.set_snapshot("before");
  snapshot.set_uid("u1");
  snapshot.set_generation(7);
  snapshot.mutable_create_time()->set_seconds(1'700'000'000);
  snapshot.set_size_bytes(4096);
  snapshot.set_num_batches_tracked(5);
  return snapshot;
}

void ExpectEveryFieldOfSnapshotMessage(const Snapshot& snapshot) {
  EXPECT_EQ(snapshot.name, "net/bn");
  EXPECT_EQ(snapshot.snapshot, "before");
  EXPECT_EQ(snapshot.uid, "u1");
  EXPECT_EQ(snapshot.generation, 7);
  EXPECT_EQ(snapshot.create_time, absl::FromUnixSeconds(1'700'000'000));
  EXPECT_EQ(snapshot.size_bytes, 4096);
  EXPECT_EQ(snapshot.num_batches_tracked, 5);
}

// What a change of a snapshot must carry, called on "net/bn" and "before" with kGuarded.
const CallOptions kGuarded{.request_id = "r1", .expected_generation = 6, .expected_uid = "u1"};

template <typename Request>
void ExpectEveryFieldOfAChange(const Request& request) {
  EXPECT_EQ(request.name(), "net/bn");
  EXPECT_EQ(request.snapshot(), "before");
  EXPECT_EQ(request.request_id(), "r1");
  EXPECT_TRUE(request.has_expected_generation());
  EXPECT_EQ(request.expected_generation(), 6);
  EXPECT_EQ(request.expected_uid(), "u1");
}

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

TEST_F(ClientSessionTest, SnapshotSendsItsGuardsAndTellsWhatWasKept) {
  *service_.snapshots.Add() = SnapshotMessage();
  const absl::StatusOr<Snapshot> snapshot = client_->Attach("net/bn").Snapshot("before", kGuarded);
  ASSERT_TRUE(snapshot.ok()) << snapshot.status();
  ExpectEveryFieldOfAChange(service_.snapshot_request);
  ExpectEveryFieldOfSnapshotMessage(*snapshot);
  EXPECT_EQ(service_.session_key, "net/bn");
}

TEST_F(ClientSessionTest, RestoreSendsItsGuardsAndTellsTheSessionAsItIsNow) {
  service_.session.set_generation(8);
  service_.session.set_mode(v1::MODE_EVAL);
  const absl::StatusOr<Session> session = client_->Attach("net/bn").Restore("before", kGuarded);
  ASSERT_TRUE(session.ok()) << session.status();
  ExpectEveryFieldOfAChange(service_.restore_request);
  EXPECT_EQ(session->generation, 8);
  EXPECT_EQ(session->mode, Mode::kEval);
  EXPECT_EQ(service_.session_key, "net/bn");
}

TEST_F(ClientSessionTest, SnapshotsSendsTheTokenOfThePageBefore) {
  *service_.snapshots.Add() = SnapshotMessage();
  const absl::StatusOr<std::vector<Snapshot>> snapshots = client_->Attach("net/bn").Snapshots();
  ASSERT_TRUE(snapshots.ok()) << snapshots.status();
  ASSERT_EQ(service_.list_snapshots_requests.size(), 2u);
  for (const v1::ListSnapshotsRequest& request : service_.list_snapshots_requests) {
    EXPECT_EQ(request.name(), "net/bn");
    EXPECT_EQ(request.page_size(), 1000);
  }
  EXPECT_EQ(service_.list_snapshots_requests[0].page_token(), "");
  EXPECT_EQ(service_.list_snapshots_requests[1].page_token(), "p2");
  ASSERT_EQ(snapshots->size(), 2u);
  for (const Snapshot& snapshot : *snapshots) ExpectEveryFieldOfSnapshotMessage(snapshot);
  EXPECT_EQ(service_.session_key, "net/bn");
}

TEST_F(ClientSessionTest, DeleteSnapshotSendsItsGuards) {
  EXPECT_TRUE(client_->Attach("net/bn").DeleteSnapshot("before", kGuarded).ok());
  ExpectEveryFieldOfAChange(service_.delete_snapshot_request);
  EXPECT_EQ(service_.session_key, "net/bn");
}

TEST_F(ClientSessionTest, ReplyThatNamesNothingIsInternal) {
  service_.session.clear_name();
  const BatchNorm bn = client_->Attach("bn");
  EXPECT_TRUE(absl::IsInternal(bn.Snapshot("before").status()));
  EXPECT_TRUE(absl::IsInternal(bn.Restore("before").status()));
}

}  // namespace
}  // namespace normserve::client
