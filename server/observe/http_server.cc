#include "server/observe/http_server.h"

#include <arpa/inet.h>
#include <httplib.h>
#include <netinet/in.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <deque>
#include <exception>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "server/observe/connection_stream.h"

namespace normserve {
namespace {

constexpr size_t kNumThreads = 4;
constexpr size_t kMaxWaiting = 64;
constexpr std::chrono::seconds kHeadTime(3);
constexpr std::chrono::seconds kReplyTime(10);

constexpr char kTooLong[] =
    "HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

void SetSafeHeaders(httplib::Response& reply) {
  for (const auto& [name, value] : {
           std::pair{"Content-Security-Policy",
                     "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors "
                     "'none'"},
           std::pair{"X-Content-Type-Options", "nosniff"},
           std::pair{"X-Frame-Options", "DENY"},
           std::pair{"Referrer-Policy", "no-referrer"},
           std::pair{"Cross-Origin-Resource-Policy", "same-origin"},
           std::pair{"Cross-Origin-Opener-Policy", "same-origin"},
           std::pair{"Cache-Control", "no-store"},
       }) {
    reply.set_header(name, value);
  }
}

// Runs what it is given at once: the threads are HttpServer's own. cpp-httplib's versions differ in what enqueue
// returns.
class AtOnce final : public httplib::TaskQueue {
 public:
  using Enqueued = decltype(std::declval<httplib::TaskQueue&>().enqueue(std::function<void()>()));
  Enqueued enqueue(std::function<void()> task) override {
    task();
    return static_cast<Enqueued>(true);
  }
  void shutdown() override {}
};

// "::1" of "[::1]".
std::string WithoutBrackets(absl::string_view host) {
  if (absl::ConsumePrefix(&host, "[")) absl::ConsumeSuffix(&host, "]");
  return std::string(host);
}

bool IsAddress(const std::string& host) {
  in_addr v4;
  in6_addr v6;
  return inet_pton(AF_INET, host.c_str(), &v4) == 1 || inet_pton(AF_INET6, host.c_str(), &v6) == 1;
}

}  // namespace

bool IsKnownHost(absl::string_view host, const std::vector<std::string>& names) {
  const size_t colon = host.rfind(':');
  const bool has_port = colon != absl::string_view::npos && host.find(']', colon) == absl::string_view::npos;
  if (has_port) {
    if (host.find_first_not_of("0123456789", colon + 1) != absl::string_view::npos) return false;
    host = host.substr(0, colon);
  }
  const std::string name = absl::AsciiStrToLower(WithoutBrackets(host));
  if (name == "localhost" || IsAddress(name)) return true;
  return std::any_of(names.begin(), names.end(),
                     [&name](const std::string& known) { return absl::AsciiStrToLower(known) == name; });
}

// cpp-httplib accepts connections and speaks HTTP; reading, time and threads are this class's.
class HttpServer::Impl final : public httplib::Server {
 public:
  Impl(const HttpServer::Options& options, HttpServer::Handler handler)
      : host_names_(options.host_names), handler_(std::move(handler)), warn_(options.warn) {
    new_task_queue = [] { return new AtOnce(); };
    // Without SO_REUSEPORT, which the library sets by itself: two servers would share the port's clients at random.
    set_socket_options([](socket_t socket) {
      const int on = 1;
      setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    });
    // Before the library looks at its routes (regular expressions, recursive) or for a body.
    set_pre_routing_handler([this](const httplib::Request& request, httplib::Response& reply) {
      Answer(request, reply);
      return HandlerResponse::Handled;
    });
  }

  ~Impl() override {
    is_stopping_.store(true);
    stop();
    if (listener_.joinable()) listener_.join();
    {
      absl::MutexLock lock(&mutex_);
      is_closed_ = true;
    }
    const uint64_t one = 1;
    if (stop_ >= 0 && write(stop_, &one, sizeof(one)) < 0) std::abort();
    for (std::thread& worker : workers_) worker.join();
    if (stop_ >= 0) close(stop_);
  }

  // The port, or minus errno.
  int Bind(const std::string& host, int port) {
    errno = 0;
    if (port == 0) {
      const int chosen = bind_to_any_port(host);
      return chosen > 0 ? chosen : -errno;
    }
    return bind_to_port(host, port) ? port : -errno;
  }

  absl::Status Start() {
    stop_ = eventfd(0, EFD_CLOEXEC);
    if (stop_ < 0) return absl::UnavailableError(absl::StrCat("eventfd: ", strerror(errno)));
    for (size_t i = 0; i < kNumThreads; ++i) workers_.emplace_back([this] { Work(); });
    listener_ = std::thread([this] {
      listen_after_bind();
      has_ended_.store(true);
      if (!is_stopping_.load() && warn_)
        warn_("the admin port does not listen any more; restart the server to have it");
    });
    // stop() does nothing before.
    while (!is_running() && !has_ended_.load()) absl::SleepFor(absl::Milliseconds(1));
    return absl::OkStatus();
  }

 private:
  // On the listener's thread.
  bool process_and_close_socket(socket_t socket) override {
    absl::MutexLock lock(&mutex_);
    if (waiting_.size() >= kMaxWaiting) {
      close(socket);
    } else {
      waiting_.push_back({socket, ConnectionStream::Clock::now() + kHeadTime});
    }
    return true;
  }

  struct Connection {
    int socket;
    ConnectionStream::Clock::time_point head_deadline;
  };

  void Work() {
    while (true) {
      Connection connection;
      {
        absl::MutexLock lock(&mutex_);
        const auto has_work = [this]()
                                  ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return is_closed_ || !waiting_.empty(); };
        mutex_.Await(absl::Condition(&has_work));
        if (waiting_.empty()) return;
        connection = waiting_.front();
        waiting_.pop_front();
      }
      Serve(connection);
      close(connection.socket);
    }
  }

  void Serve(const Connection& connection) {
    ConnectionStream stream(connection.socket, stop_, connection.head_deadline, connection.head_deadline + kReplyTime);
    switch (stream.ReadHead()) {
      case ConnectionStream::Head::kNotRead:
        return;
      case ConnectionStream::Head::kTooLong:
        stream.write(kTooLong, sizeof(kTooLong) - 1);
        break;
      case ConnectionStream::Head::kRead: {
        bool is_closed = false;
        ProcessRequest(*this, stream, is_closed);
        break;
      }
    }
    stream.Finish();
  }

  // Later versions of cpp-httplib ask for the two addresses, too.
  template <typename Self>
  static void ProcessRequest(Self& self, httplib::Stream& stream, bool& is_closed) {
    const std::function<void(httplib::Request&)> nothing;
    if constexpr (requires { self.process_request(stream, true, is_closed, nothing); }) {
      self.process_request(stream, true, is_closed, nothing);
    } else {
      self.process_request(stream, "", 0, "", 0, true, is_closed, nothing);
    }
  }

  void Answer(const httplib::Request& request, httplib::Response& reply) const {
    HttpReply answer;
    if (!IsKnownHost(request.get_header_value("Host"), host_names_)) {
      answer = {.status = 421,
                .body =
                    "This server is not known by that name: ask for its address, or start it with "
                    "--admin-host NAME.\n"};
    } else if (request.method != "GET" && request.method != "HEAD") {
      answer = {.status = 405, .body = "Only GET and HEAD are answered here.\n"};
      reply.set_header("Allow", "GET, HEAD");
    } else {
      answer = CallHandler(request);
    }
    SetSafeHeaders(reply);
    reply.status = answer.status;
    reply.set_content(answer.body, answer.content_type);
  }

  HttpReply CallHandler(const httplib::Request& request) const {
    HttpRequest asked{.path = request.path};
    for (const auto& [name, value] : request.params) asked.query.emplace(name, value);
    try {
      return handler_(asked);
    } catch (const std::exception& exception) {
      // No code of ours throws: memory has run out.
      return {.status = 500, .body = absl::StrCat("The server has no memory for this (", exception.what(), ").\n")};
    }
  }

  // Constant once started.
  const std::vector<std::string> host_names_;
  const HttpServer::Handler handler_;
  const std::function<void(const std::string&)> warn_;
  int stop_ = -1;  // an eventfd, readable once all is to stop
  std::thread listener_;
  std::vector<std::thread> workers_;

  std::atomic<bool> is_stopping_{false};
  std::atomic<bool> has_ended_{false};

  absl::Mutex mutex_;
  std::deque<Connection> waiting_ ABSL_GUARDED_BY(mutex_);
  bool is_closed_ ABSL_GUARDED_BY(mutex_) = false;
};

HttpServer::HttpServer(std::unique_ptr<Impl> impl, std::string address)
    : impl_(std::move(impl)), address_(std::move(address)) {}

HttpServer::~HttpServer() = default;

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Create(const Options& options, Handler handler) {
  const size_t colon = options.listen.rfind(':');
  int port = 0;
  if (colon == std::string::npos || !absl::SimpleAtoi(options.listen.substr(colon + 1), &port)) {
    return absl::UnavailableError(absl::StrCat("cannot listen on ", options.listen, ": it is no HOST:PORT"));
  }
  const std::string host = options.listen.substr(0, colon);
  auto impl = std::make_unique<Impl>(options, std::move(handler));
  const int bound = impl->Bind(WithoutBrackets(host), port);
  if (bound <= 0) {
    return absl::UnavailableError(
        absl::StrCat("cannot listen on ", options.listen, ": ",
                     bound < 0 ? strerror(-bound) : "the address is in use or not this machine's",
                     "; choose another with --admin-listen"));
  }
  if (absl::Status status = impl->Start(); !status.ok()) return status;
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(impl), absl::StrCat(host, ":", bound)));
}

}  // namespace normserve
