#include "server/observe/connection_stream.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <initializer_list>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace normserve {
namespace {

constexpr absl::string_view kLineEnd = "\r\n";
constexpr absl::string_view kHeadEnd = "\r\n\r\n";

}  // namespace

std::string WithoutFields(absl::string_view head, std::initializer_list<absl::string_view> fields) {
  std::string kept;
  while (!head.empty()) {
    const size_t end = std::min(head.find(kLineEnd), head.size() - kLineEnd.size()) + kLineEnd.size();
    const absl::string_view line = head.substr(0, end);
    const bool is_dropped = std::any_of(fields.begin(), fields.end(), [line](absl::string_view field) {
      return absl::StartsWithIgnoreCase(line, field);
    });
    if (!is_dropped) absl::StrAppend(&kept, std::string(line));
    head.remove_prefix(end);
  }
  return kept;
}

ConnectionStream::Head ConnectionStream::ReadHead() {
  char piece[4096];
  std::string read;
  while (true) {
    if (!WaitFor(/*writable=*/false)) return Head::kNotRead;
    const ssize_t size = recv(socket_, piece, sizeof(piece), MSG_DONTWAIT);
    if (size < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (size <= 0) return Head::kNotRead;
    // The end may lie across two pieces.
    const size_t from = read.size() < kHeadEnd.size() ? 0 : read.size() - kHeadEnd.size();
    read.append(piece, static_cast<size_t>(size));
    const size_t end = read.find(kHeadEnd.data(), from, kHeadEnd.size());
    if (end != std::string::npos) read.resize(end + kHeadEnd.size());
    if (read.size() > kMaxHeadBytes) return Head::kTooLong;
    if (end != std::string::npos) break;
  }
  head_ = WithoutFields(read, {"range:", "accept-encoding:", "expect:"});
  return Head::kRead;
}

ssize_t ConnectionStream::read(char* ptr, size_t size) {
  const size_t taken = std::min(size, head_.size() - position_);
  std::copy_n(head_.begin() + static_cast<ptrdiff_t>(position_), taken, ptr);
  position_ += taken;
  return static_cast<ssize_t>(taken);
}

ssize_t ConnectionStream::write(const char* ptr, size_t size) {
  while (true) {
    const ssize_t sent = send(socket_, ptr, size, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent >= 0) return sent;
    if (errno != EINTR && errno != EAGAIN) return -1;
    if (!WaitFor(/*writable=*/true)) return -1;
  }
}

void ConnectionStream::Finish() {
  shutdown(socket_, SHUT_WR);
  char rest[4096];
  for (int i = 0; i < 64; ++i) {
    if (recv(socket_, rest, sizeof(rest), MSG_DONTWAIT) <= 0) return;
  }
}

bool ConnectionStream::WaitFor(bool writable) const {
  while (true) {
    const auto deadline = writable ? reply_deadline_ : head_deadline_;
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    if (left <= 0) return false;
    pollfd waits[] = {{.fd = socket_, .events = static_cast<short>(writable ? POLLOUT : POLLIN), .revents = 0},
                      {.fd = stop_, .events = POLLIN, .revents = 0}};
    // A reply may still be taken after the end began.
    const int ready = poll(waits, writable ? 1 : 2, static_cast<int>(std::min<int64_t>(left, 10'000)));
    if (ready < 0 && errno != EINTR) return false;
    if (ready <= 0) continue;
    if (waits[0].revents != 0) return true;
    if (waits[1].revents != 0) return false;
  }
}

}  // namespace normserve
