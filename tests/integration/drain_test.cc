// How a server ends.
#include <grpcpp/client_context.h>
#include <gtest/gtest.h>
#include <signal.h>

#include "absl/strings/match.h"
#include "tests/integration/raw_stream.h"
#include "tests/integration/server_process.h"
#include "tests/integration/test_client.h"

namespace normserve::integration {
namespace {

using grpc::StatusCode;

constexpr char kForward[] = "/normserve.v1.BatchNormService/Forward";
constexpr char kWatch[] = "/grpc.health.v1.Health/Watch";
// grpc.health.v1.HealthCheckResponse{status}.
const std::string kServing = "\x08\x01", kNotServing = "\x08\x02";

// A Forward that has been committed and whose reply waits for Read: in work until then.
std::unique_ptr<RawStream> HeldForward(ServerProcess& server, TestClient& client) {
  client.Create("held", 3);
  auto stream = std::make_unique<RawStream>(server.NewChannel(), kForward);
  EXPECT_TRUE(stream->WriteLast(MakeForward("held", {1 << 18, 3}, SomeValues(3 << 18)).SerializeAsString()));
  while (client.Get("held").num_batches_tracked() == 0) {
  }
  return stream;
}

TEST(Drain, TenOpenWatchesHearOfItAndDoNotKeepTheServer) {
  ServerProcess server;
  ASSERT_FALSE(server.address().empty()) << server.Log();
  std::vector<std::unique_ptr<RawStream>> watches;
  std::string message;
  for (int i = 0; i < 10; ++i) {
    watches.push_back(std::make_unique<RawStream>(server.NewChannel(), kWatch));
    ASSERT_TRUE(watches.back()->WriteLast(""));
    ASSERT_TRUE(watches.back()->Read(&message));
    EXPECT_EQ(message, kServing);
  }
  server.Signal(SIGTERM);
  for (auto& watch : watches) {
    ASSERT_TRUE(watch->Read(&message));
    EXPECT_EQ(message, kNotServing);
    EXPECT_FALSE(watch->Read(&message));
    EXPECT_FALSE(watch->Finish().ok());
  }
  EXPECT_EQ(server.Wait(), 0);
}

TEST(Drain, ARequestInWorkFinishesWhileNewOnesAreRefused) {
  ServerProcess server({"--drain-timeout", "120s"});
  ASSERT_FALSE(server.address().empty()) << server.Log();
  TestClient client(server.stub());
  const auto held = HeldForward(server, client);
  RawStream watch(server.NewChannel(), kWatch);
  std::string message;
  ASSERT_TRUE(watch.WriteLast(""));
  ASSERT_TRUE(watch.Read(&message));

  server.Signal(SIGTERM);
  ASSERT_TRUE(watch.Read(&message));
  EXPECT_EQ(message, kNotServing);
  // Health speaks first, so a call or two may still be let in.
  grpc::Status status;
  do {
    status = client.SetMode("held", v1::MODE_EVAL);
  } while (status.ok());
  EXPECT_THAT(status, Fails(StatusCode::UNAVAILABLE, "DRAINING"));

  std::string bytes;
  ASSERT_TRUE(held->Read(&bytes));
  v1::ForwardReply reply;
  ASSERT_TRUE(reply.ParseFromString(bytes));
  EXPECT_EQ(reply.output().data().size(), size_t{3} << 20);
  EXPECT_THAT(held->Finish(), Succeeds());
  EXPECT_EQ(server.Wait(), 0);
}

TEST(Drain, ARequestBeyondTheTimeoutIsCancelledAndTheServerStillEndsWell) {
  ServerProcess server({"--drain-timeout", "50ms"});
  ASSERT_FALSE(server.address().empty()) << server.Log();
  TestClient client(server.stub());
  const auto held = HeldForward(server, client);
  server.Signal(SIGINT);
  EXPECT_EQ(server.Wait(), 0);
  EXPECT_TRUE(absl::StrContains(server.Log(), "--drain-timeout")) << server.Log();
}

TEST(Drain, ASecondSignalEndsAtOnce) {
  ServerProcess server({"--drain-timeout", "1h"});
  ASSERT_FALSE(server.address().empty()) << server.Log();
  TestClient client(server.stub());
  const auto held = HeldForward(server, client);
  server.Signal(SIGTERM);
  grpc::Status status;
  do {
    status = client.SetMode("held", v1::MODE_EVAL);
  } while (status.ok());
  server.Signal(SIGTERM);
  EXPECT_EQ(server.Wait(), -SIGTERM);
}

TEST(Drain, ASignalRightAfterTheStartEndsWell) {
  ServerProcess server;
  ASSERT_FALSE(server.address().empty()) << server.Log();
  server.Signal(SIGTERM);
  EXPECT_EQ(server.Wait(), 0);
}

}  // namespace
}  // namespace normserve::integration
