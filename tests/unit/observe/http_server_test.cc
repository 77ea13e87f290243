#include "server/observe/http_server.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include "absl/strings/numbers.h"

namespace normserve {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

// What the server at 127.0.0.1 says to `request`, up to the end of the connection.
std::string Ask(const HttpServer& server, const std::string& request) {
  int port = 0;
  EXPECT_TRUE(absl::SimpleAtoi(server.address().substr(server.address().rfind(':') + 1), &port));
  const int client = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(static_cast<uint16_t>(port))};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(connect(client, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  EXPECT_EQ(send(client, request.data(), request.size(), MSG_NOSIGNAL), static_cast<ssize_t>(request.size()));
  std::string reply;
  char piece[4096];
  for (ssize_t size = 0; (size = recv(client, piece, sizeof(piece), 0)) > 0;)
    reply.append(piece, static_cast<size_t>(size));
  close(client);
  return reply;
}

std::unique_ptr<HttpServer> Serve(HttpServer::Handler handler) {
  auto server = HttpServer::Create({.listen = "127.0.0.1:0", .host_names = {"normserve"}}, std::move(handler));
  EXPECT_TRUE(server.ok()) << server.status();
  return *std::move(server);
}

HttpReply Echo(const HttpRequest& request) {
  const auto count = request.query.find("count");
  return {.body = request.path + "|" + (count == request.query.end() ? "" : count->second)};
}

TEST(HttpServer, HandsOverThePathAndTheQueryDecoded) {
  const auto server = Serve(Echo);
  EXPECT_THAT(Ask(*server, "GET /a%2Fb%20c?count=1%202 HTTP/1.1\r\nHost: localhost\r\n\r\n"),
              AllOf(StartsWith("HTTP/1.1 200 OK"), HasSubstr("\r\n\r\n/a/b c|1 2")));
}

TEST(HttpServer, EveryReplyForbidsWhatAnotherOriginCouldDoWithIt) {
  const auto server = Serve(Echo);
  const std::string reply = Ask(*server, "GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n\r\n");
  EXPECT_THAT(reply, AllOf(HasSubstr("Content-Security-Policy: default-src 'self'"), HasSubstr("nosniff"),
                           HasSubstr("X-Frame-Options: DENY"), HasSubstr("Cross-Origin-Resource-Policy: same-origin")));
  EXPECT_THAT(reply, Not(HasSubstr("Access-Control-Allow")));
}

TEST(HttpServer, AnswersOnlyToNamesItIsKnownBy) {
  const auto server = Serve(Echo);
  EXPECT_THAT(Ask(*server, "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n"), StartsWith("HTTP/1.1 421"));
  EXPECT_THAT(Ask(*server, "GET / HTTP/1.1\r\n\r\n"), StartsWith("HTTP/1.1 421"));
  EXPECT_THAT(Ask(*server, "GET / HTTP/1.1\r\nHost: normserve:8002\r\n\r\n"), StartsWith("HTTP/1.1 200"));
}

TEST(HttpServer, AnswersGetAndHeadAlone) {
  const auto server = Serve(Echo);
  for (const char* const method : {"POST", "PUT", "DELETE", "OPTIONS", "PATCH"}) {
    EXPECT_THAT(Ask(*server, std::string(method) + " / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"),
                AllOf(StartsWith("HTTP/1.1 405"), HasSubstr("Allow: GET, HEAD")))
        << method;
  }
  EXPECT_THAT(Ask(*server, "HEAD /x HTTP/1.1\r\nHost: localhost\r\n\r\n"),
              AllOf(StartsWith("HTTP/1.1 200"), Not(HasSubstr("/x|"))));
}

TEST(HttpServer, AHandlersExceptionIsAnError) {
  const auto server = Serve([](const HttpRequest&) -> HttpReply { throw std::bad_alloc(); });
  EXPECT_THAT(Ask(*server, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"), StartsWith("HTTP/1.1 500"));
}

TEST(HttpServer, APortInUseIsAnErrorThatNamesIt) {
  const auto first = Serve(Echo);
  const auto second = HttpServer::Create({.listen = first->address()}, Echo);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.status().message()), AllOf(HasSubstr(first->address()), HasSubstr("--admin-listen")));
}

TEST(IsKnownHost, KnowsAddressesLocalhostAndTheNamesGiven) {
  const std::vector<std::string> names = {"Box.example"};
  for (const char* const host : {"127.0.0.1", "127.0.0.1:80", "10.1.2.3:1", "[::1]", "[::1]:8002", "localhost:1",
                                 "LOCALHOST", "box.EXAMPLE:8002"}) {
    EXPECT_TRUE(IsKnownHost(host, names)) << host;
  }
  for (const char* const host : {"", "evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "1:x",
                                 "localhost:1:x", "box.example.evil", "127.0.0.1:80x"}) {
    EXPECT_FALSE(IsKnownHost(host, names)) << host;
  }
}

}  // namespace
}  // namespace normserve
