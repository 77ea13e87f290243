#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>

#include "server/observe/connection_stream.h"

namespace normserve {
namespace {

using Head = ConnectionStream::Head;

// A connection, and what a client has sent on it.
class Connection : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends_), 0);
    stop_ = eventfd(0, 0);
  }
  void TearDown() override {
    for (const int end : {ends_[0], ends_[1], stop_}) close(end);
  }

  void Send(const std::string& bytes) {
    ASSERT_EQ(send(ends_[1], bytes.data(), bytes.size(), MSG_DONTWAIT), static_cast<ssize_t>(bytes.size()));
  }
  ConnectionStream Stream(std::chrono::milliseconds time = std::chrono::seconds(60)) {
    const auto deadline = ConnectionStream::Clock::now() + time;
    return ConnectionStream(ends_[0], stop_, deadline, deadline);
  }
  static std::string ReadAll(ConnectionStream& stream) {
    std::string read(ConnectionStream::kMaxHeadBytes, '\0');
    read.resize(static_cast<size_t>(stream.read(read.data(), read.size())));
    return read;
  }

  int ends_[2];
  int stop_ = -1;
};

TEST_F(Connection, HandsOnTheHeadWithoutWhatTheLibraryWouldWorkOn) {
  Send("GET / HTTP/1.1\r\nHost: a\r\nrange: bytes=0-1\r\nAccept-Encoding: br\r\nAccept: */*\r\n\r\nbody");
  ConnectionStream stream = Stream();
  EXPECT_EQ(stream.ReadHead(), Head::kRead);
  EXPECT_EQ(ReadAll(stream), "GET / HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n");
  EXPECT_EQ(ReadAll(stream), "");
}

TEST_F(Connection, AHeadWithoutAnEndIsReadUpToTheLimitAndNoFurther) {
  Send("GET / HTTP/1.1\r\n" + std::string(ConnectionStream::kMaxHeadBytes + 8192, 'a'));
  ConnectionStream stream = Stream();
  EXPECT_EQ(stream.ReadHead(), Head::kTooLong);
  EXPECT_EQ(ReadAll(stream), "");
}

TEST_F(Connection, IsGivenUpWhenItsTimeIsOver) {
  Send("GET / HTTP/1.1\r\n");
  ConnectionStream stream = Stream(std::chrono::milliseconds(1));
  EXPECT_EQ(stream.ReadHead(), Head::kNotRead);
}

TEST_F(Connection, IsGivenUpWhenTheServerStopsUnlessTheRequestIsHere) {
  const uint64_t one = 1;
  ASSERT_EQ(write(stop_, &one, sizeof(one)), static_cast<ssize_t>(sizeof(one)));
  ConnectionStream unfinished = Stream();
  EXPECT_EQ(unfinished.ReadHead(), Head::kNotRead);
  Send("GET / HTTP/1.1\r\n\r\n");
  ConnectionStream whole = Stream();
  EXPECT_EQ(whole.ReadHead(), Head::kRead);
}

TEST_F(Connection, AClientThatDoesNotReadIsGivenUpWhenItsTimeIsOver) {
  ConnectionStream stream = Stream(std::chrono::milliseconds(1));
  const std::string reply(1 << 20, 'r');
  ssize_t written = 0;
  while (written >= 0) written = stream.write(reply.data(), reply.size());
  EXPECT_EQ(written, -1);
}

TEST(WithoutFields, TakesOutWholeLinesAndNothingElse) {
  EXPECT_EQ(WithoutFields("GET /range: HTTP/1.1\r\nRange: 1\r\nX-Range: 2\r\n\r\n", {"range:"}),
            "GET /range: HTTP/1.1\r\nX-Range: 2\r\n\r\n");
}

}  // namespace
}  // namespace normserve
