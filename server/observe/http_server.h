// A small HTTP server that only answers GET: the admin port's transport.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace normserve {

struct HttpRequest {
  std::string path;                          // "/api/models/net", percent-decoded; any bytes
  std::map<std::string, std::string> query;  // of "?a=b", percent-decoded; the first of each name
};

struct HttpReply {
  int status = 200;
  std::string content_type = "text/plain; charset=utf-8";
  std::string body;
};

// Whether `host`, of a request's Host header, may be answered: an address, "localhost" or one of `names`, with any
// port. Another name may be a web page's that points it at this machine to read it from the user's browser (DNS
// rebinding).
bool IsKnownHost(absl::string_view host, const std::vector<std::string>& names);

// One request a connection, from a fixed number of threads. What a client sends is bounded: 16 KiB of head, no body,
// three seconds to send it and ten more to take the reply, 64 connections waiting; beyond that it is disconnected.
//
// Answers GET and HEAD (405 to others) of hosts that IsKnownHost knows (421 to others). Every reply forbids to be
// framed, cached or read by other origins, and, as a page, to load or run anything that is not this server's.
class HttpServer {
 public:
  // Called on the server's threads, several at once. What it throws becomes 500.
  using Handler = std::function<HttpReply(const HttpRequest&)>;

  struct Options {
    std::string listen;                   // HOST:PORT or [IPV6]:PORT; port 0: a free one
    std::vector<std::string> host_names;  // further names that it is known by
    // Told what no client is told of: that it does not listen any more.
    std::function<void(const std::string&)> warn;
  };

  // Serves from now on. UNAVAILABLE: the address cannot be bound; the message names it.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Create(const Options& options, Handler handler);

  // Stops listening; requests that are here whole get their reply, up to the ten seconds, others are cut.
  ~HttpServer();

  // Where it listens, port 0 replaced by the one chosen.
  const std::string& address() const { return address_; }

 private:
  class Impl;
  HttpServer(std::unique_ptr<Impl> impl, std::string address);

  const std::unique_ptr<Impl> impl_;
  const std::string address_;
};

}  // namespace normserve
