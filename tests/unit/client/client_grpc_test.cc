// The client over a real channel, against a service in this process that answers as it is told.
#include <arpa/inet.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "normserve/client.h"
#include "normserve/v1/batch_norm_service.grpc.pb.h"
#include "normserve/v1/error_details.pb.h"

namespace normserve::client {
namespace {

// Answers Forward with its input and remembers what it was sent.
class EchoService : public v1::BatchNormService::Service {
 public:
  grpc::Status Forward(grpc::ServerContext* context, const v1::ForwardRequest* request,
                       v1::ForwardReply* reply) override {
    Remember(context);
    if (failures_left-- > 0) return grpc::Status(grpc::StatusCode::UNAVAILABLE, "draining");
    *reply->mutable_output() = request->input();
    reply->set_generation(1);
    return grpc::Status::OK;
  }

  grpc::Status GetStats(grpc::ServerContext* context, const v1::GetStatsRequest* request,
                        v1::GetStatsReply* reply) override {
    Remember(context);
    reply->add_sessions()->set_name(request->name());
    return stats_status;
  }

  grpc::Status GetServerInfo(grpc::ServerContext* context, const v1::GetServerInfoRequest*,
                             v1::ServerInfo* reply) override {
    Remember(context);
    while (!context->IsCancelled()) absl::SleepFor(absl::Milliseconds(1));  // longer than any deadline
    return grpc::Status::CANCELLED;
  }

  std::atomic<int> failures_left = 0;
  grpc::Status stats_status;
  std::string last_session_key;
  absl::Duration last_timeout;

 private:
  void Remember(grpc::ServerContext* context) {
    last_session_key.clear();
    const auto found = context->client_metadata().find("normserve-session");
    if (found != context->client_metadata().end()) {
      last_session_key = std::string(found->second.data(), found->second.size());
    }
    last_timeout = absl::FromChrono(context->deadline()) - absl::Now();
  }
};

// A link with a long way to a server in this machine: what comes back over a connection waits `delay` at its beginning.
class DistantLink {
 public:
  DistantLink(int server_port, absl::Duration delay) : server_port_(server_port), delay_(delay) {
    listener_ = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address = Loopback(0);
    socklen_t size = sizeof address;
    if (bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0 || listen(listener_, 16) != 0 ||
        getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
      ADD_FAILURE() << "no port to listen at";
    }
    port_ = ntohs(address.sin_port);
    acceptor_ = std::thread([this] { Accept(); });
  }

  ~DistantLink() {
    ending_ = true;
    acceptor_.join();
    for (std::thread& connection : connections_) connection.join();
    close(listener_);
  }

  int port() const { return port_; }

 private:
  static sockaddr_in Loopback(int port) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<uint16_t>(port));
    return address;
  }

  // Whether `fd` has something to read; false too when the link ends.
  bool WaitFor(int fd) const {
    pollfd wait = {.fd = fd, .events = POLLIN, .revents = 0};
    while (!ending_) {
      if (poll(&wait, 1, /*timeout=*/20) > 0) return true;
    }
    return false;
  }

  void Accept() {
    while (WaitFor(listener_)) {
      const int client = accept(listener_, nullptr, nullptr);
      if (client >= 0) connections_.emplace_back([this, client] { Carry(client); });
    }
  }

  void Carry(int client) const {
    const int server = socket(AF_INET, SOCK_STREAM, 0);
    const sockaddr_in address = Loopback(server_port_);
    if (connect(server, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) {
      std::thread forth([&] { Copy(client, server); });
      absl::SleepFor(delay_);
      Copy(server, client);
      forth.join();
    }
    close(server);
    close(client);
  }

  // Until `from` ends; then `to` is told so.
  void Copy(int from, int to) const {
    char bytes[4096];
    while (WaitFor(from)) {
      const ssize_t read = recv(from, bytes, sizeof bytes, 0);
      if (read <= 0 || send(to, bytes, static_cast<size_t>(read), MSG_NOSIGNAL) != read) break;
    }
    shutdown(to, SHUT_WR);
  }

  const int server_port_;
  const absl::Duration delay_;
  int listener_ = -1;
  int port_ = 0;
  std::atomic<bool> ending_ = false;
  std::thread acceptor_;
  std::vector<std::thread> connections_;  // the acceptor's while it runs
};

class ClientGrpcTest : public ::testing::Test {
 protected:
  void SetUp() override {
    grpc::ServerBuilder builder;
    builder.SetMaxReceiveMessageSize(-1);
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
    absl::StatusOr<Client> client = Client::Connect("127.0.0.1:" + std::to_string(port_));
    ASSERT_TRUE(client.ok());
    client_ = *client;
  }

  void TearDown() override { server_->Shutdown(); }

  int port_ = 0;
  EchoService service_;
  std::unique_ptr<grpc::Server> server_;
  std::optional<Client> client_;
};

TEST_F(ClientGrpcTest, ForwardCarriesATensorBeyondGrpcsDefaultLimitBothWays) {
  Tensor input{.shape = {2, 3, 512, 1024}, .values = std::vector<float>(2 * 3 * 512 * 1024)};  // 12 MiB
  for (size_t i = 0; i < input.values.size(); ++i) input.values[i] = static_cast<float>(i);
  const absl::StatusOr<ForwardResult> result = client_->Attach("net/bn1").Forward(input);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->output.shape, input.shape);
  EXPECT_EQ(result->output.values, input.values);
  EXPECT_EQ(service_.last_session_key, "net/bn1");
}

TEST_F(ClientGrpcTest, ForwardOutlivesAServerThatIsUnavailableForAWhile) {
  service_.failures_left = 2;
  EXPECT_TRUE(client_->Attach("bn").Forward({{1, 2}, {1.f, 2.f}}).ok());
}

TEST_F(ClientGrpcTest, ServerThatTakesHalfASecondToAnswerTheConnectionIsReached) {
  const DistantLink link(port_, absl::Milliseconds(500));
  // One attempt: what is repeated would be given longer.
  const absl::StatusOr<Client> client =
      Client::Connect("127.0.0.1:" + std::to_string(link.port()), {.retry = {.max_attempts = 1}});
  ASSERT_TRUE(client.ok());
  const absl::StatusOr<SessionStats> stats = client->Attach("bn").Stats();
  EXPECT_TRUE(stats.ok()) << stats.status();
}

TEST_F(ClientGrpcTest, NameThatMetadataCannotHoldStaysOutOfIt) {
  EXPECT_TRUE(client_->Attach("b\xc3\xa4tch\nnorm").Forward({{1, 2}, {1.f, 2.f}}).ok());
  EXPECT_EQ(service_.last_session_key, "");
}

TEST_F(ClientGrpcTest, CallsHaveADeadlineOfThirtySecondsByDefault) {
  EXPECT_TRUE(client_->Attach("bn").Stats().ok());
  EXPECT_GT(service_.last_timeout, absl::ZeroDuration());
  EXPECT_LE(service_.last_timeout, absl::Seconds(31));
  EXPECT_TRUE(client_->Attach("bn").Stats({.timeout = absl::InfiniteDuration()}).ok());
  EXPECT_GT(service_.last_timeout, absl::Hours(1));
}

TEST_F(ClientGrpcTest, CallThatTakesTooLongEndsWithDeadlineExceeded) {
  const absl::Status status = client_->GetServerInfo({.timeout = absl::Milliseconds(50)}).status();
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
}

TEST_F(ClientGrpcTest, ErrorKeepsCodeTextReasonAndMetadata) {
  v1::ErrorInfo info;
  info.set_reason("SHAPE_MISMATCH");
  info.set_domain("normserve");
  (*info.mutable_metadata())["field"] = "input.shape";
  v1::StatusDetails details;
  google::protobuf::Any* any = details.add_details();
  any->set_type_url("type.googleapis.com/google.rpc.ErrorInfo");
  any->set_value(info.SerializeAsString());
  const std::string text = "input has 32 channels, session \"bn\" has 64";
  service_.stats_status = grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, text, details.SerializeAsString());

  const absl::Status status = client_->Attach("bn").Stats().status();
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_EQ(std::string(status.message()), text);
  const std::optional<ErrorInfo> read = GetErrorInfo(status);
  ASSERT_TRUE(read.has_value());
  EXPECT_EQ(read->reason, "SHAPE_MISMATCH");
  EXPECT_EQ(read->metadata.at("field"), "input.shape");
  EXPECT_FALSE(GetRetryDelay(status).has_value());
}

TEST_F(ClientGrpcTest, DetailsThatAreNotReadableLeaveTheErrorAsItIs) {
  service_.stats_status = grpc::Status(grpc::StatusCode::NOT_FOUND, "no session \"bn\"", "\xff\xff garbage");
  const absl::Status status = client_->Attach("bn").Stats().status();
  EXPECT_TRUE(absl::IsNotFound(status));
  EXPECT_EQ(std::string(status.message()), "no session \"bn\"");
  EXPECT_FALSE(GetErrorInfo(status).has_value());
}

TEST_F(ClientGrpcTest, MethodThatTheServerLacksIsUnimplemented) {
  EXPECT_TRUE(absl::IsUnimplemented(client_->Open("bn").status()));
  EXPECT_TRUE(absl::IsUnimplemented(client_->CheckHealth().status()));
}

TEST(ClientAddressTest, EmptyAddressIsRefused) { EXPECT_TRUE(absl::IsInvalidArgument(Client::Connect("").status())); }

TEST(ClientAddressTest, ServerThatIsNotThereIsUnavailable) {
  const absl::StatusOr<Client> client = Client::Connect("127.0.0.1:1", {.retry = {.max_attempts = 1}});
  ASSERT_TRUE(client.ok());
  EXPECT_TRUE(absl::IsUnavailable(client->GetServerInfo().status()));
}

}  // namespace
}  // namespace normserve::client
