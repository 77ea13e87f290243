// What is there after a server was stopped or killed, and what it does while its directory fails.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include "absl/strings/str_cat.h"
#include "tests/integration/durable_server.h"

namespace normserve::integration {
namespace {

using grpc::StatusCode;
using testing::HasSubstr;

TEST_F(DurabilityTest, AllOfASessionIsBackAfterSigtermAndAfterSigkill) {
  auto server = Start();
  ASSERT_FALSE(server->address().empty());
  EXPECT_EQ(MustCall(*server, &Stub::GetServerInfo, {}).default_durability(), v1::DURABILITY_COMMIT);
  v1::CreateSessionRequest creation = Creation("model/layer", 3);
  (*creation.mutable_config()->mutable_labels())["owner"] = "me";
  (*creation.mutable_config()->mutable_labels())["site"] = "";
  const v1::Session created = MustCall(*server, &Stub::CreateSession, creation);
  EXPECT_EQ(created.durability(), v1::DURABILITY_COMMIT);
  EXPECT_EQ(MustCall(*server, &Stub::CreateSession, Creation("flushed", 2, v1::DURABILITY_FLUSH)).durability(),
            v1::DURABILITY_FLUSH);
  EXPECT_EQ(MustCall(*server, &Stub::CreateSession, Creation("passing", 2, v1::DURABILITY_NONE)).durability(),
            v1::DURABILITY_NONE);
  const auto forward = [&](const std::string& name, int64_t num_features, uint32_t seed) {
    return MustCall(*server, &Stub::Forward, MakeForward(name, {4, num_features}, SomeValues(4 * num_features, seed)));
  };
  for (int life = 0; life < 4; ++life) {
    EXPECT_EQ(forward("model/layer", 3, life).durability(), v1::DURABILITY_COMMIT);
    EXPECT_EQ(forward("flushed", 2, life).durability(), v1::DURABILITY_FLUSH);
    if (life == 0) {
      EXPECT_EQ(forward("passing", 2, life).durability(), v1::DURABILITY_NONE);
    }
    TakeSnapshot(*server, "model/layer", absl::StrCat("s", life));
    if (life == 1) {
      EXPECT_THAT(TestClient(server->stub()).SetMode("model/layer", v1::MODE_SHADOW), Succeeds());
    }
    const std::string layer = AllOf(*server, "model/layer"), flushed = AllOf(*server, "flushed");
    EXPECT_THAT(layer, HasSubstr(created.uid()));
    EXPECT_THAT(layer, HasSubstr("last_batch"));
    Restart(server, life % 2 == 0 ? SIGKILL : SIGTERM);
    ASSERT_FALSE(server->address().empty());
    EXPECT_EQ(MustCall(*server, &Stub::GetServerInfo, {}).num_sessions(), 2);
    EXPECT_EQ(AllOf(*server, "model/layer"), layer);
    EXPECT_EQ(AllOf(*server, "flushed"), flushed);
    v1::GetStatsReply stats;
    EXPECT_THAT(GetStats(*server, "passing", &stats), Fails(StatusCode::NOT_FOUND, "SESSION_NOT_FOUND"));
  }
  v1::GetStatsReply stats;
  EXPECT_THAT(GetStats(*server, "model/layer", &stats), Succeeds());
  EXPECT_EQ(stats.sessions(0).mode(), v1::MODE_SHADOW);
  EXPECT_EQ(stats.sessions(0).shadow().count(), 8) << "of two lives";
  EXPECT_EQ(stats.sessions(0).statistics().num_batches_tracked(), 2);
}

TEST_F(DurabilityTest, WithoutADirectorySessionsLiveInMemoryOnlyAndMoreCannotBeAsked) {
  ServerProcess server;
  ASSERT_FALSE(server.address().empty()) << server.Log();
  EXPECT_THAT(server.Log(), HasSubstr("sessions live in memory only"));
  EXPECT_EQ(MustCall(server, &Stub::GetServerInfo, {}).default_durability(), v1::DURABILITY_NONE);
  EXPECT_EQ(MustCall(server, &Stub::CreateSession, Creation("a", 2)).durability(), v1::DURABILITY_NONE);
  EXPECT_EQ(MustCall(server, &Stub::Forward, MakeForward("a", {2, 2}, {1, 2, 3, 4})).durability(), v1::DURABILITY_NONE);
  for (const v1::Durability durability : {v1::DURABILITY_COMMIT, v1::DURABILITY_FLUSH}) {
    v1::Session session;
    const grpc::Status status = Call(server, &Stub::CreateSession, Creation("b", 2, durability), &session);
    EXPECT_THAT(status, Fails(StatusCode::FAILED_PRECONDITION, "DURABILITY_UNAVAILABLE"));
    EXPECT_EQ(MetadataOf(status, "field"), "config.durability");
  }
}

TEST_F(DurabilityTest, ARepeatAfterARestartGivesTheFirstAnswer) {
  auto server = Start();
  ASSERT_FALSE(server->address().empty());
  v1::CreateSessionRequest creation = Creation("a", 3);
  creation.set_request_id("create");
  const v1::Session created = MustCall(*server, &Stub::CreateSession, creation);
  v1::ForwardRequest batch = MakeForward("a", {4, 3}, SomeValues(12), "batch");
  v1::ForwardRequest running = MakeForward("a", {4, 3}, SomeValues(12, 2), "running");
  running.mutable_running();
  running.set_update(v1::UPDATE_RUNNING);
  const v1::ForwardReply first = MustCall(*server, &Stub::Forward, batch);
  const v1::ForwardReply second = MustCall(*server, &Stub::Forward, running);
  EXPECT_EQ(second.normalized_with(), v1::NORMALIZED_WITH_RUNNING);
  // What both were computed with is replaced.
  v1::SetParametersRequest parameters;
  parameters.set_name("a");
  parameters.set_request_id("parameters");
  for (const float weight : {5.f, 6.f, 7.f}) parameters.mutable_parameters()->add_weight(weight);
  const v1::Session set = MustCall(*server, &Stub::SetParameters, parameters);
  MustCall(*server, &Stub::Forward, MakeForward("a", {4, 3}, SomeValues(12, 3)));
  const std::string before = AllOf(*server, "a");
  for (const int signal : {SIGKILL, SIGTERM}) {
    Restart(server, signal);
    ASSERT_FALSE(server->address().empty());
    EXPECT_EQ(MustCall(*server, &Stub::Forward, running).SerializeAsString(), second.SerializeAsString());
    EXPECT_EQ(MustCall(*server, &Stub::Forward, batch).SerializeAsString(), first.SerializeAsString());
    EXPECT_EQ(MustCall(*server, &Stub::SetParameters, parameters).DebugString(), set.DebugString());
    EXPECT_EQ(MustCall(*server, &Stub::CreateSession, creation).DebugString(), created.DebugString());
    EXPECT_EQ(AllOf(*server, "a"), before);
    v1::ForwardReply reply;
    EXPECT_THAT(Call(*server, &Stub::Forward, MakeForward("a", {4, 3}, SomeValues(12, 4), "batch"), &reply),
                Fails(StatusCode::INVALID_ARGUMENT, "REQUEST_ID_REUSED"));
  }
  v1::DeleteSessionRequest deletion;
  deletion.set_name("a");
  deletion.set_request_id("delete");
  const auto deleted = MustCall(*server, &Stub::DeleteSession, deletion);
  Restart(server, SIGKILL);
  ASSERT_FALSE(server->address().empty());
  EXPECT_EQ(MustCall(*server, &Stub::DeleteSession, deletion).DebugString(), deleted.DebugString());
  EXPECT_EQ(MustCall(*server, &Stub::GetServerInfo, {}).num_sessions(), 0);
}

TEST_F(DurabilityTest, SessionsAreListedByLabelAlsoAfterARestart) {
  auto server = Start();
  ASSERT_FALSE(server->address().empty());
  for (const char* const name : {"a", "b", "c"}) {
    v1::CreateSessionRequest request = Creation(name, 2);
    (*request.mutable_config()->mutable_labels())["owner"] = *name == 'c' ? "you" : "me";
    if (*name == 'b') (*request.mutable_config()->mutable_labels())["stage"] = "";
    MustCall(*server, &Stub::CreateSession, request);
  }
  Restart(server, SIGKILL);
  ASSERT_FALSE(server->address().empty());
  const auto names = [&](const std::vector<std::pair<std::string, std::string>>& labels) {
    v1::ListSessionsRequest request;
    for (const auto& [key, value] : labels) (*request.mutable_label_filter())[key] = value;
    const v1::ListSessionsReply reply = MustCall(*server, &Stub::ListSessions, request);
    std::string joined;
    for (const v1::Session& session : reply.sessions()) joined += session.name();
    return joined;
  };
  EXPECT_EQ(names({}), "abc");
  EXPECT_EQ(names({{"owner", "me"}}), "ab");
  EXPECT_EQ(names({{"owner", "me"}, {"stage", ""}}), "b");
  EXPECT_EQ(names({{"stage", "x"}}), "");
}

TEST_F(DurabilityTest, ADamagedSessionAnswersDataLossAndOthersAreServed) {
  auto server = Start();
  ASSERT_FALSE(server->address().empty());
  TestClient client(server->stub());
  for (const char* const name : {"good", "bad"}) client.Create(name, 2);
  const std::string good = AllOf(*server, "good");
  server->Signal(SIGTERM);
  EXPECT_EQ(server->Wait(), 0);
  Sql(directory_.file("normserve.db"),
      "UPDATE current_vectors SET data = CAST(substr(data, 1, 20) || x'ff' || substr(data, 22) AS BLOB) WHERE kind = 2 "
      "AND session = "
      "(SELECT id FROM sessions WHERE name = 'bad')");
  server = Start();
  ASSERT_FALSE(server->address().empty());
  v1::GetStatsReply stats;
  EXPECT_THAT(GetStats(*server, "bad", &stats), Fails(StatusCode::DATA_LOSS, "STORED_DATA_LOST"));
  EXPECT_THAT(TestClient(server->stub()).Forward(MakeForward("bad", {2, 2}, {1, 2, 3, 4})),
              Fails(StatusCode::DATA_LOSS, "STORED_DATA_LOST"));
  EXPECT_EQ(AllOf(*server, "good"), good);
  MustCall(*server, &Stub::Forward, MakeForward("good", {2, 2}, {1, 2, 3, 4}));
  v1::DeleteSessionRequest deletion;
  deletion.set_name("bad");
  MustCall(*server, &Stub::DeleteSession, deletion);
  TestClient(server->stub()).Create("bad", 2);
}

TEST_F(DurabilityTest, WhatIsDamagedIsLoggedAndNeverShownRaw) {
  auto server = Start();
  ASSERT_FALSE(server->address().empty());
  for (const char* const name : {"good", "bad"}) {
    v1::CreateSessionRequest creation = Creation(name, 2);
    creation.set_request_id(name);
    MustCall(*server, &Stub::CreateSession, creation);
  }
  for (const char* const name : {"s", "t", "u"}) TakeSnapshot(*server, "good", name);
  server->Signal(SIGTERM);
  EXPECT_EQ(server->Wait(), 0);
  Sql(directory_.file("normserve.db"),
      "UPDATE sessions SET name = CAST(x'ff' AS TEXT), record = x'01' WHERE name = 'bad';"
      "UPDATE snapshots SET name = CAST(x'7480' AS TEXT) WHERE name = 't';"
      "UPDATE snapshots SET record = x'01' WHERE name = 'u';"
      "UPDATE server_requests SET request_id = CAST(x'fe' AS TEXT) WHERE request_id = 'bad'");
  server = Start();
  ASSERT_FALSE(server->address().empty());
  EXPECT_THAT(server->Log(), HasSubstr("session \"\\xff\" in "));
  EXPECT_THAT(server->Log(), HasSubstr("1 remembered requests in "));
  EXPECT_EQ(MustCall(*server, &Stub::GetServerInfo, {}).num_sessions(), 2);
  const v1::ListSessionsReply sessions = MustCall(*server, &Stub::ListSessions, {});
  ASSERT_EQ(sessions.sessions_size(), 1);
  EXPECT_EQ(sessions.sessions(0).name(), "good");
  v1::ListSnapshotsRequest listing;
  listing.set_name("good");
  const v1::ListSnapshotsReply snapshots = MustCall(*server, &Stub::ListSnapshots, listing);
  ASSERT_EQ(snapshots.snapshots_size(), 2);
  EXPECT_EQ(snapshots.snapshots(0).snapshot(), "s");
  EXPECT_EQ(snapshots.snapshots(1).snapshot(), "u");
  EXPECT_EQ(snapshots.snapshots(1).create_time().seconds(), 0);
  v1::RestoreStateReply restored;
  EXPECT_THAT(Call(*server, &Stub::RestoreState, OfSnapshot<v1::RestoreStateRequest>("good", "u"), &restored),
              Fails(StatusCode::DATA_LOSS, "STORED_DATA_LOST"));
  MustCall(*server, &Stub::DeleteSnapshot, OfSnapshot<v1::DeleteSnapshotRequest>("good", "u"));
}

TEST_F(DurabilityTest, WhileWritesFailReadsGoOnAndChangesAreRefusedByTheFilesName) {
  auto server = Start();
  ASSERT_FALSE(server->address().empty());
  TestClient client(server->stub());
  client.Create("a", 1024);
  const auto train = [&](const std::string& id) { return MakeForward("a", {2, 1024}, SomeValues(2048), id); };
  MustCall(*server, &Stub::Forward, train("first"));
  // The server may not write beyond a file's first page: much as if the disk were full.
  struct rlimit before = {}, limit = {};
  ASSERT_EQ(prlimit(server->pid(), RLIMIT_FSIZE, nullptr, &before), 0);
  limit = before;
  limit.rlim_cur = 4096;
  ASSERT_EQ(prlimit(server->pid(), RLIMIT_FSIZE, &limit, nullptr), 0);
  const grpc::Status status = client.Forward(train("second"));
  EXPECT_THAT(status, Fails(StatusCode::UNAVAILABLE, "STORE_REFUSED"));
  EXPECT_THAT(status.error_message(), HasSubstr(directory_.file("normserve.db")));
  EXPECT_THAT(client.SetMode("a", v1::MODE_EVAL), Fails(StatusCode::UNAVAILABLE, "STORE_REFUSED"));
  v1::Session session;
  EXPECT_THAT(Call(*server, &Stub::CreateSession, Creation("b", 1024), &session),
              Fails(StatusCode::UNAVAILABLE, "STORE_REFUSED"));
  v1::GetStatsReply stats;
  EXPECT_THAT(GetStats(*server, "a", &stats), Succeeds());
  EXPECT_EQ(stats.sessions(0).statistics().num_batches_tracked(), 1);
  v1::ForwardRequest eval = train("");
  eval.set_mode(v1::MODE_EVAL);
  EXPECT_EQ(MustCall(*server, &Stub::Forward, eval).generation(), 1);
  // An answer given before is given again.
  EXPECT_EQ(MustCall(*server, &Stub::Forward, train("first")).num_batches_tracked(), 1);

  ASSERT_EQ(prlimit(server->pid(), RLIMIT_FSIZE, &before, nullptr), 0);
  EXPECT_EQ(MustCall(*server, &Stub::Forward, train("second")).num_batches_tracked(), 2);
  Restart(server, SIGKILL);
  ASSERT_FALSE(server->address().empty());
  EXPECT_EQ(TestClient(server->stub()).Get("a").num_batches_tracked(), 2);
}

}  // namespace
}  // namespace normserve::integration
