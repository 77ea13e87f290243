// The C++ client of Normserve. Start here:
//
//   auto client = normserve::client::Client::Connect("127.0.0.1:8001");
//   auto bn = client->CreateSession({.name = "encoder/bn3", .config = {.num_features = 64}});
//   auto y = bn->Forward({{32, 64, 56, 56}, values});   // trains: normalises with the batch, updates the statistics
//   auto mode = bn->Eval();                             // from now on: with the running statistics
//
// Every one of these is an absl::StatusOr: ask ok() before you use it.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "normserve/batch_norm.h"
#include "normserve/call_options.h"
#include "normserve/checkpoint.h"
#include "normserve/connection.h"
#include "normserve/error_info.h"
#include "normserve/model.h"
#include "normserve/server_info.h"
#include "normserve/session.h"
#include "normserve/statistics.h"
#include "normserve/stats_watch.h"
#include "normserve/tensor.h"

namespace normserve::client {

// What a new session starts with. num_features is required; an otherwise empty one behaves as
// nn.BatchNorm2d(num_features) does.
struct NewSession {
  std::string name = {};  // empty: the server makes one
  SessionConfig config = {};
  Mode mode = Mode::kUnspecified;                    // unset: kTrain
  Parameters parameters = {};                        // empty: weight 1, bias 0
  std::optional<RunningStatistics> statistics = {};  // unset: mean 0, variance 1, no batches
};

// A server, as its callers see it.
//
// Thread safety: all methods are const and may be called from several threads at once; a Client may be copied cheaply,
// and its copies and the BatchNorm handles made from it share one connection, which lives as long as any of them.
//
// Calls block until the reply is there or the deadline (ClientOptions::timeout, 30 s) has passed. Reads, and changes
// with a request_id (the default), are repeated while the server is UNAVAILABLE or ends them (CANCELLED); see
// RetryPolicy.
class Client {
 public:
  // The server at `address`, such as "127.0.0.1:8001". Nothing is sent yet: a server that is not there shows in the
  // first call. The connection is not encrypted. INVALID_ARGUMENT: the address is empty.
  static absl::StatusOr<Client> Connect(const std::string& address, ClientOptions options = {});

  // Over a connection of the caller's own: a MockConnection, or MakeGrpcConnection over a channel with credentials.
  // `connection` must not be null.
  explicit Client(std::shared_ptr<Connection> connection, ClientOptions options = {});

  // Opens a session. ALREADY_EXISTS: the name is taken. RESOURCE_EXHAUSTED: too many sessions or bytes.
  absl::StatusOr<BatchNorm> CreateSession(const NewSession& session, const CallOptions& options = {}) const;

  // A handle of a session that exists. NOT_FOUND: there is none.
  absl::StatusOr<BatchNorm> Open(const std::string& name, const CallOptions& options = {}) const;

  // A handle of a session that is taken to exist; asks nobody.
  BatchNorm Attach(const std::string& name) const;

  // All sessions under `prefix` (whole segments; empty: all) in the order of their names, read page by page within one
  // deadline. A session opened or deleted meanwhile may be there or not.
  absl::StatusOr<std::vector<Session>> ListSessions(const std::string& prefix = "",
                                                    const CallOptions& options = {}) const;
  // The same, of the sessions that have all of some labels:
  //   client->ListSessions({.prefix = "resnet50", .labels = {{"team", "vision"}}})
  absl::StatusOr<std::vector<Session>> ListSessions(const ListSessionsOptions& options) const;

  // A handle of all sessions whose names begin with `prefix` ("resnet50" and "resnet50/" are the same); asks nobody.
  Model AttachModel(const std::string& prefix) const;

  // A checkpoint's batch-norm layers become sessions in EVAL mode, all of them in one transaction or none:
  //   client->ImportState("resnet50/", "resnet50.safetensors")
  // They are found by their tensors (running_mean with running_var), never by a name; layer "layer1.0.bn1" becomes
  // "resnet50/layer1.0.bn1". `name` may be a session's, for a file of one layer.
  // ALREADY_EXISTS: see ImportOptions::existing. INVALID_ARGUMENT names the tensor that is not sound.
  // RESOURCE_EXHAUSTED: too many sessions or bytes. FAILED_PRECONDITION: an existing session does not fit. What the
  // system says of the file.
  absl::StatusOr<ImportResult> ImportState(const std::string& name, const std::string& path,
                                           const ImportOptions& options = {}) const;
  // The same of a file's bytes.
  absl::StatusOr<ImportResult> ImportStateBytes(const std::string& name, absl::string_view bytes,
                                                const ImportOptions& options = {}) const;

  // What the server is: version, devices and limits.
  absl::StatusOr<ServerInfo> GetServerInfo(const CallOptions& options = {}) const;

  // Whether the server says that it serves (grpc.health.v1).
  absl::StatusOr<Health> CheckHealth(const std::string& service = "", const CallOptions& options = {}) const;

 private:
  std::shared_ptr<const Caller> caller_;  // never null
};

}  // namespace normserve::client
