// One connection of the admin port: bounded in bytes and in time.
#pragma once

#include <httplib.h>

#include <chrono>
#include <string>

#include "absl/strings/string_view.h"

namespace normserve {

// cpp-httplib bounds a line and a read, but neither the number of headers nor the time that a request takes. This reads
// a request's head whole before the library sees it, up to kMaxHeadBytes and a time; the reply must be taken by a time,
// too. Owns nothing.
class ConnectionStream final : public httplib::Stream {
 public:
  using Clock = std::chrono::steady_clock;

  // Cookies that other programs of this machine have set come along.
  static constexpr size_t kMaxHeadBytes = 16 << 10;

  // `stop` becomes readable when nothing is to be read any more.
  ConnectionStream(int socket, int stop, Clock::time_point head_deadline, Clock::time_point reply_deadline)
      : socket_(socket), stop_(stop), head_deadline_(head_deadline), reply_deadline_(reply_deadline) {}

  enum class Head { kRead, kTooLong, kNotRead };
  // Reads up to the empty line; what the library would spend time on is taken out: this server sends nothing in parts
  // (Range), nothing compressed (Accept-Encoding), and reads no body (Expect).
  Head ReadHead();

  bool is_readable() const override { return position_ < head_.size(); }
  bool is_writable() const override { return WaitFor(/*writable=*/true); }
  ssize_t read(char* ptr, size_t size) override;
  ssize_t write(const char* ptr, size_t size) override;
  void get_remote_ip_and_port(std::string&, int&) const override {}
  void get_local_ip_and_port(std::string&, int&) const override {}
  socket_t socket() const override { return socket_; }

  // Says that nothing follows, and takes what the client still sends, so that the reply is not lost with a reset.
  void Finish();

 private:
  // Until the socket is ready; false when the deadline has passed or, in reading, all is to stop.
  bool WaitFor(bool writable) const;

  const int socket_;
  const int stop_;
  const Clock::time_point head_deadline_;
  const Clock::time_point reply_deadline_;
  std::string head_;
  size_t position_ = 0;  // in head_
};

// `head` without the lines of the header fields named, which are lower case and end in ':'.
std::string WithoutFields(absl::string_view head, std::initializer_list<absl::string_view> fields);

}  // namespace normserve
