// Snapshots: named, byte-exact, guarded.
#include <gtest/gtest.h>
#include <signal.h>

#include <thread>

#include "absl/strings/str_cat.h"
#include "tests/integration/durable_server.h"

namespace normserve::integration {
namespace {

using grpc::StatusCode;

using SnapshotTest = DurabilityTest;

TEST_F(SnapshotTest, ARestoreIsOneNewGenerationOfTheSnapshotsState) {
  auto server = Start();
  ASSERT_FALSE(server->address().empty());
  TestClient client(server->stub());
  client.Create("a", 3);
  const auto forward = [&](uint32_t seed) {
    v1::ForwardRequest request = MakeForward("a", {4, 3}, SomeValues(12, seed), absl::StrCat(seed));
    request.set_mode(v1::MODE_TRAIN);
    return MustCall(*server, &Stub::Forward, request);
  };
  forward(1);
  forward(2);
  EXPECT_THAT(client.SetMode("a", v1::MODE_EVAL), Succeeds());
  const v1::Session kept = client.Get("a");
  const v1::Snapshot snapshot = TakeSnapshot(*server, "a", "best");
  EXPECT_EQ(snapshot.name(), "a");
  EXPECT_EQ(snapshot.uid(), kept.uid());
  EXPECT_EQ(snapshot.generation(), kept.generation());
  EXPECT_EQ(snapshot.num_batches_tracked(), 2);
  EXPECT_GT(snapshot.size_bytes(), 3 * 24);
  EXPECT_EQ(client.Get("a").generation(), kept.generation()) << "keeping a state changes none";

  EXPECT_THAT(client.SetMode("a", v1::MODE_TRAIN), Succeeds());
  v1::SetParametersRequest parameters;
  parameters.set_name("a");
  for (const float bias : {5.f, 6.f, 7.f}) parameters.mutable_parameters()->add_bias(bias);
  MustCall(*server, &Stub::SetParameters, parameters);
  forward(3);
  const int64_t generation = client.Get("a").generation();
  Restart(server, SIGKILL);
  ASSERT_FALSE(server->address().empty());
  const v1::Session restored =
      MustCall(*server, &Stub::RestoreState, OfSnapshot<v1::RestoreStateRequest>("a", "best")).sessions(0);
  EXPECT_EQ(restored.generation(), generation + 1);
  EXPECT_EQ(restored.num_batches_tracked(), 2);
  EXPECT_EQ(restored.mode(), v1::MODE_EVAL);
  EXPECT_EQ(restored.num_snapshots(), 1);
  Restart(server, SIGKILL);
  ASSERT_FALSE(server->address().empty());
  const v1::Session after = TestClient(server->stub()).Get("a");
  EXPECT_EQ(after.generation(), generation + 1);
  EXPECT_EQ(after.statistics().SerializeAsString(), kept.statistics().SerializeAsString());
  EXPECT_EQ(after.parameters().SerializeAsString(), kept.parameters().SerializeAsString());
  // A change made after the snapshot is not made again by its repeat.
  forward(3);
  EXPECT_EQ(TestClient(server->stub()).Get("a").generation(), generation + 1);
}

TEST_F(SnapshotTest, AForwardAdmittedBeforeARestoreIsNotFoldedIntoIt) {
  auto server = Start();
  ASSERT_FALSE(server->address().empty());
  TestClient(server->stub()).Create("a", 3);
  TakeSnapshot(*server, "a", "s");
  const v1::ForwardRequest batch = MakeForward("a", {1 << 16, 3}, SomeValues(3 << 16));
  // A round in which the restore came too early or too late shows nothing.
  bool is_met = false;
  for (int round = 0; round < 500 && !is_met; ++round) {
    grpc::Status folded;
    v1::ForwardReply reply;
    std::thread caller([&] { folded = Call(*server, &Stub::Forward, batch, &reply); });
    const auto restored = MustCall(*server, &Stub::RestoreState, OfSnapshot<v1::RestoreStateRequest>("a", "s"));
    caller.join();
    EXPECT_EQ(restored.sessions(0).num_batches_tracked(), 0);
    const v1::Session after = TestClient(server->stub()).Get("a");
    if (folded.ok()) {
      EXPECT_EQ(after.num_batches_tracked(), reply.generation() > restored.sessions(0).generation() ? 1 : 0);
    } else {
      EXPECT_THAT(folded, Fails(StatusCode::ABORTED, "LINEAGE_CHANGED"));
      EXPECT_EQ(after.num_batches_tracked(), 0);
      is_met = true;
    }
  }
  EXPECT_TRUE(is_met);
}

TEST_F(SnapshotTest, SnapshotsAreListedByPagesInTheOrderOfTheirNames) {
  auto server = Start();
  ASSERT_FALSE(server->address().empty());
  TestClient client(server->stub());
  client.Create("a", 2);
  for (const char* const name : {"c", "e", "a", "B", "d"}) TakeSnapshot(*server, "a", name);
  EXPECT_EQ(client.Get("a").num_snapshots(), 5);
  Restart(server, SIGKILL);
  ASSERT_FALSE(server->address().empty());
  std::string names, token;
  std::vector<int> sizes;
  do {
    const auto page = ListSnapshots(*server, "a", 2, token);
    for (const v1::Snapshot& snapshot : page.snapshots()) names += snapshot.snapshot();
    sizes.push_back(page.snapshots_size());
    token = page.next_page_token();
  } while (!token.empty());
  EXPECT_EQ(names, "Bacde");
  EXPECT_EQ(sizes, std::vector<int>({2, 2, 1}));
  EXPECT_EQ(ListSnapshots(*server, "a", 5).next_page_token(), "");
  for (const int page_size : {-1, 1001}) {
    v1::ListSnapshotsRequest request;
    request.set_name("a");
    request.set_page_size(page_size);
    v1::ListSnapshotsReply reply;
    EXPECT_THAT(Call(*server, &Stub::ListSnapshots, request, &reply),
                Fails(StatusCode::INVALID_ARGUMENT, "INVALID_FIELD"));
  }
}

// The three changes to snapshots: what is true of all.
template <typename Request, typename Reply>
void CheckSnapshotCall(ServerProcess& server,
                       grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Reply*),
                       const std::string& snapshot) {
  SCOPED_TRACE(Request::descriptor()->name());
  const v1::Session before = TestClient(server.stub()).Get("a");
  Reply reply;
  for (const std::string& illegal :
       {std::string(), std::string("a/b"), std::string(".a"), std::string("a b"), std::string(64, 'a')}) {
    const grpc::Status status = Call(server, method, OfSnapshot<Request>("a", illegal), &reply);
    EXPECT_THAT(status, Fails(StatusCode::INVALID_ARGUMENT, "INVALID_FIELD")) << illegal;
    EXPECT_EQ(MetadataOf(status, "field"), "snapshot");
  }
  Request request = OfSnapshot<Request>("a", snapshot, absl::StrCat("id of ", Request::descriptor()->name()));
  request.set_expected_generation(before.generation() + 1);
  EXPECT_THAT(Call(server, method, request, &reply), Fails(StatusCode::ABORTED, "GENERATION_MISMATCH"));
  request.set_expected_generation(before.generation());
  request.set_expected_uid("0123456789abcdef");
  EXPECT_THAT(Call(server, method, request, &reply), Fails(StatusCode::ABORTED, "UID_MISMATCH"));
  request.set_expected_uid(before.uid());
  EXPECT_EQ(TestClient(server.stub()).Get("a").DebugString(), before.DebugString());

  const std::string first = MustCall(server, method, request).DebugString();
  const std::string after = TestClient(server.stub()).Get("a").DebugString();
  EXPECT_NE(after, before.DebugString());
  EXPECT_EQ(MustCall(server, method, request).DebugString(), first);
  request.set_snapshot("another");
  EXPECT_THAT(Call(server, method, request, &reply), Fails(StatusCode::INVALID_ARGUMENT, "REQUEST_ID_REUSED"));
  EXPECT_EQ(TestClient(server.stub()).Get("a").DebugString(), after);
  EXPECT_THAT(Call(server, method, OfSnapshot<Request>("no-such", snapshot), &reply),
              Fails(StatusCode::NOT_FOUND, "SESSION_NOT_FOUND"));
}

TEST_F(SnapshotTest, SnapshotCallsAreGuardedAndRefuseByName) {
  auto server = Start();
  ASSERT_FALSE(server->address().empty());
  TestClient client(server->stub());
  client.Create("a", 2);
  MustCall(*server, &Stub::Forward, MakeForward("a", {2, 2}, {1, 2, 3, 4}));
  CheckSnapshotCall(*server, &Stub::SnapshotState, "s");
  CheckSnapshotCall(*server, &Stub::RestoreState, "s");
  v1::SnapshotStateReply taken;
  EXPECT_THAT(Call(*server, &Stub::SnapshotState, OfSnapshot<v1::SnapshotStateRequest>("a", "s"), &taken),
              Fails(StatusCode::ALREADY_EXISTS, "SNAPSHOT_EXISTS"));
  CheckSnapshotCall(*server, &Stub::DeleteSnapshot, "s");
  v1::RestoreStateReply restored;
  EXPECT_THAT(Call(*server, &Stub::RestoreState, OfSnapshot<v1::RestoreStateRequest>("a", "s"), &restored),
              Fails(StatusCode::NOT_FOUND, "SNAPSHOT_NOT_FOUND"));
  v1::DeleteSnapshotReply deleted;
  EXPECT_THAT(Call(*server, &Stub::DeleteSnapshot, OfSnapshot<v1::DeleteSnapshotRequest>("a", "s"), &deleted),
              Fails(StatusCode::NOT_FOUND, "SNAPSHOT_NOT_FOUND"));
}

TEST_F(SnapshotTest, ACloneHasNoSnapshotsAndAnEmptyRequestMemory) {
  auto server = Start();
  ASSERT_FALSE(server->address().empty());
  TestClient client(server->stub());
  client.Create("a", 2);
  MustCall(*server, &Stub::Forward, MakeForward("a", {2, 2}, {1, 2, 3, 4}, "id"));
  TakeSnapshot(*server, "a", "s");
  v1::CloneSessionRequest request;
  request.set_name("a");
  request.set_clone_name("b");
  EXPECT_EQ(MustCall(*server, &Stub::CloneSession, request).num_snapshots(), 0);
  Restart(server, SIGKILL);
  ASSERT_FALSE(server->address().empty());
  EXPECT_EQ(ListSnapshots(*server, "b").snapshots_size(), 0);
  EXPECT_EQ(TestClient(server->stub()).Get("b").durability(), v1::DURABILITY_COMMIT);
  EXPECT_EQ(MustCall(*server, &Stub::Forward, MakeForward("b", {2, 2}, {1, 2, 3, 4}, "id")).num_batches_tracked(), 2);
  EXPECT_EQ(MustCall(*server, &Stub::Forward, MakeForward("a", {2, 2}, {1, 2, 3, 4}, "id")).num_batches_tracked(), 1);
}

}  // namespace
}  // namespace normserve::integration
