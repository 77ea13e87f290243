#include "server/grpc_server.h"

#include <grpc/grpc.h>
#include <grpcpp/ext/channelz_service_plugin.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/impl/server_builder_option.h>
#include <grpcpp/impl/server_builder_plugin.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace normserve {
namespace {

// What watchers get to hear NOT_SERVING before their streams are cancelled.
constexpr std::chrono::milliseconds kFarewell(200);

constexpr char kUnixPrefix[] = "unix:";

// Linking the reflection library adds its service to every server; this takes it out again.
class WithoutReflection final : public grpc::ServerBuilderOption {
 public:
  void UpdateArguments(grpc::ChannelArguments*) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>* plugins) override {
    plugins->erase(std::remove_if(plugins->begin(), plugins->end(),
                                  [](const auto& plugin) { return absl::StrContains(plugin->name(), "reflection"); }),
                   plugins->end());
  }
};

// Both add to what every later ServerBuilder holds, so before the first.
void SetUpPlugins(const ServerOptions& options) {
  grpc::EnableDefaultHealthCheckService(true);
  if (options.reflection) grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  if (options.channelz) grpc::channelz::experimental::InitChannelzService();
}

// Whether a server accepts connections on the file of this unix: address: binding would take it over in silence.
bool IsServedSocket(const std::string& address) {
  if (!absl::StartsWith(address, kUnixPrefix)) return false;
  sockaddr_un name = {.sun_family = AF_UNIX};
  const std::string path = address.substr(sizeof(kUnixPrefix) - 1);
  if (path.size() >= sizeof(name.sun_path)) return false;
  path.copy(name.sun_path, path.size());
  const int socket_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (socket_fd < 0) return false;
  const bool is_served = connect(socket_fd, reinterpret_cast<const sockaddr*>(&name), sizeof(name)) == 0;
  close(socket_fd);
  return is_served;
}

std::string BoundAddress(const std::string& address, int port) {
  if (absl::StartsWith(address, "unix")) return address;
  return absl::StrCat(address.substr(0, address.rfind(':')), ":", port);
}

}  // namespace

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Create(const ServerOptions& options,
                                                               std::unique_ptr<BatchNormServiceImpl> service,
                                                               std::shared_ptr<CallGate> gate) {
  for (const std::string& address : options.listen) {
    if (!IsServedSocket(address)) continue;
    return absl::UnavailableError(
        absl::StrCat("cannot listen on ", address, ": a server is listening there; choose another with --listen"));
  }
  // Never undone: shutting the library down with the last server joins a poller of gRPC's that may sleep for ten
  // seconds.
  grpc_init();
  SetUpPlugins(options);
  std::unique_ptr<GrpcServer> result(new GrpcServer(std::move(service), std::move(gate)));
  grpc::ServerBuilder builder;
  builder.RegisterService(result->service_.get());
  builder.SetMaxReceiveMessageSize(static_cast<int>(options.max_message_bytes));
  builder.SetMaxSendMessageSize(-1);
  // CallGate counts a message once it is here; while messages arrive, the transport's own memory has this bound.
  builder.SetResourceQuota(
      grpc::ResourceQuota("normserve")
          .Resize(static_cast<size_t>(options.max_in_flight_bytes) + static_cast<size_t>(options.max_message_bytes)));
  // A compressed message is inflated before its length is looked at.
  builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_DEFLATE, false);
  builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_GZIP, false);
  // Two servers on one port would share its clients at random.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  // Who watches and is gone without a word is noticed.
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 60'000);
  builder.AddChannelArgument(GRPC_ARG_ENABLE_CHANNELZ, options.channelz ? 1 : 0);
  if (!options.reflection) builder.SetOption(std::make_unique<WithoutReflection>());
  std::vector<int> ports(options.listen.size());
  for (size_t i = 0; i < options.listen.size(); ++i) {
    builder.AddListeningPort(options.listen[i], grpc::InsecureServerCredentials(), &ports[i]);
  }
  result->server_ = builder.BuildAndStart();
  for (size_t i = 0; i < options.listen.size(); ++i) {
    if (result->server_ == nullptr || ports[i] == 0) {
      return absl::UnavailableError(
          absl::StrCat("cannot listen on ", options.listen[i],
                       ": the address is in use or not this machine's; choose another with --listen"));
    }
    result->addresses_.push_back(BoundAddress(options.listen[i], ports[i]));
  }
  result->server_->GetHealthCheckService()->SetServingStatus(v1::BatchNormService::service_full_name(), true);
  return result;
}

bool GrpcServer::Drain(absl::Duration timeout) {
  server_->GetHealthCheckService()->Shutdown();
  gate_->StartDraining();
  service_->Drain();
  const bool finished = gate_->WaitForCalls(timeout);
  // Without a deadline this would wait for health watches, which never end by themselves.
  server_->Shutdown(std::chrono::system_clock::now() + kFarewell);
  server_->Wait();
  return finished;
}

}  // namespace normserve
