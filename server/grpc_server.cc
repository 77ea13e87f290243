#include "server/grpc_server.h"

#include <grpc/grpc.h>
#include <grpcpp/ext/channelz_service_plugin.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/impl/server_builder_option.h>
#include <grpcpp/impl/server_builder_plugin.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>

#include <algorithm>
#include <chrono>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace normserve {
namespace {

// What watchers get to hear NOT_SERVING before their streams are cancelled.
constexpr std::chrono::milliseconds kFarewell(200);

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

std::string BoundAddress(const std::string& address, int port) {
  if (absl::StartsWith(address, "unix:")) return address;
  return absl::StrCat(address.substr(0, address.rfind(':')), ":", port);
}

}  // namespace

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Create(const ServerOptions& options,
                                                               std::unique_ptr<BatchNormServiceImpl> service,
                                                               std::shared_ptr<CallGate> gate) {
  SetUpPlugins(options);
  std::unique_ptr<GrpcServer> result(new GrpcServer(std::move(service), std::move(gate)));
  grpc::ServerBuilder builder;
  builder.RegisterService(result->service_.get());
  builder.SetMaxReceiveMessageSize(static_cast<int>(options.max_message_bytes));
  builder.SetMaxSendMessageSize(-1);
  // Two servers on one port would share its clients at random.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
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
  const bool finished = gate_->WaitForCalls(timeout);
  // Without a deadline this would wait for health watches, which never end by themselves.
  server_->Shutdown(std::chrono::system_clock::now() + kFarewell);
  server_->Wait();
  return finished;
}

}  // namespace normserve
