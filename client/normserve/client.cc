#include "normserve/client.h"

#include <utility>

#include "absl/status/status.h"
#include "normserve/caller.h"
#include "normserve/grpc_connection.h"

namespace normserve::client {

absl::StatusOr<Client> Client::Connect(const std::string& address, ClientOptions options) {
  if (address.empty()) {
    return absl::InvalidArgumentError("address is empty: give HOST:PORT, such as 127.0.0.1:8001");
  }
  return Client(MakeGrpcConnection(address), std::move(options));
}

Client::Client(std::shared_ptr<Connection> connection, ClientOptions options)
    : caller_(std::make_shared<const Caller>(std::move(connection), std::move(options))) {}

absl::StatusOr<BatchNorm> Client::CreateSession(const NewSession& session, const CallOptions& options) const {
  absl::StatusOr<Session> created = caller_->CreateSession({.name = session.name,
                                                            .config = session.config,
                                                            .mode = session.mode,
                                                            .parameters = session.parameters,
                                                            .statistics = session.statistics},
                                                           options);
  if (!created.ok()) return created.status();
  return BatchNorm(caller_, created->name);
}

absl::StatusOr<BatchNorm> Client::Open(const std::string& name, const CallOptions& options) const {
  absl::StatusOr<Session> session = caller_->GetSession(name, /*full=*/false, options);
  if (!session.ok()) return session.status();
  return BatchNorm(caller_, session->name);
}

BatchNorm Client::Attach(const std::string& name) const { return BatchNorm(caller_, name); }

absl::StatusOr<std::vector<Session>> Client::ListSessions(const std::string& prefix, const CallOptions& options) const {
  return caller_->ListAllSessions({.prefix = prefix}, options);
}

absl::StatusOr<std::vector<Session>> Client::ListSessions(const ListSessionsOptions& options) const {
  return caller_->ListAllSessions({.prefix = options.prefix, .label_filter = options.labels}, options.call);
}

Model Client::AttachModel(const std::string& prefix) const { return Model(caller_, prefix); }

absl::StatusOr<ImportResult> Client::ImportState(const std::string& name, const std::string& path,
                                                 const ImportOptions& options) const {
  if (path.empty()) return absl::InvalidArgumentError("path is empty: give that of a safetensors file");
  return caller_->ImportState({.name = name, .path = path, .options = options});
}

absl::StatusOr<ImportResult> Client::ImportStateBytes(const std::string& name, absl::string_view bytes,
                                                      const ImportOptions& options) const {
  return caller_->ImportState({.name = name, .bytes = bytes, .options = options});
}

absl::StatusOr<ServerInfo> Client::GetServerInfo(const CallOptions& options) const {
  return caller_->GetServerInfo(options);
}

absl::StatusOr<Health> Client::CheckHealth(const std::string& service, const CallOptions& options) const {
  return caller_->CheckHealth(service, options);
}

}  // namespace normserve::client
