// normserve-server: batch normalisation over gRPC. The only place that chooses an engine and a store.
#include <pthread.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <stdlib.h>

#include <cstdio>
#include <fstream>
#include <iostream>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "kernels/engine.h"
#include "kernels/reference_engine.h"
#include "kernels/vulkan_engine.h"
#include "server/grpc_server.h"
#include "server/logging.h"
#include "server/observe/admin_site.h"
#include "server/observe/call_metrics.h"
#include "server/observe/http_server.h"
#include "server/observe/measured_engine.h"
#include "server/rpc/batch_norm_service.h"
#include "server/rpc/call_gate.h"
#include "server/server_options.h"
#include "server/session/session_registry.h"
#include "server/store/sqlite_store.h"

namespace normserve {
namespace {

// What the transport gets to send the last replies before their memory goes.
constexpr absl::Duration kLastBytesTimeout = absl::Seconds(5);

struct ChosenEngine {
  std::unique_ptr<Engine> engine;
  std::vector<DeviceDescription> devices;
  std::function<DeviceTests()> device_tests;  // as long as the engine lives
};

DeviceTests TestsOf(const VulkanEngine& engine) {
  const SelfTestReport report = engine.self_test_report();
  DeviceTests tests{.keeps_subnormals = report.keeps_subnormals};
  for (const SelfTestReport::Entry& entry : report.entries) {
    tests.variants.emplace_back(VariantName(entry.variant), static_cast<DeviceTests::Result>(entry.result));
  }
  return tests;
}

// What clients are told of the devices, the chosen one first.
std::vector<DeviceDescription> Describe(const VulkanEngine& engine) {
  std::vector<DeviceDescription> devices;
  const vulkan::Selection& selection = engine.selection();
  for (size_t i = 0; i < engine.devices().size(); ++i) {
    const vulkan::DeviceSnapshot& device = engine.devices()[i];
    DeviceDescription description{.name = device.name,
                                  .uuid = device.uuid,
                                  .type = vulkan::DeviceTypeName(device.type),
                                  .driver = absl::StrCat(device.driver_name, " ", device.driver_info),
                                  .api_version = absl::StrCat(device.api_version_major, ".", device.api_version_minor),
                                  .in_use = i == selection.chosen,
                                  .reason = selection.reasons[i]};
    devices.insert(description.in_use ? devices.begin() : devices.end(), std::move(description));
  }
  return devices;
}

absl::StatusOr<ChosenEngine> ChooseEngine(const ServerOptions& options) {
  if (options.engine == "reference") {
    spdlog::warn("--engine reference: every call is computed in double precision on the processor, slowly");
    return ChosenEngine{.engine = std::make_unique<ReferenceEngine>()};
  }
  auto mask = vulkan::ParseDeviceMask(options.device_mask);
  if (!mask.ok()) return mask.status();
  auto engine = VulkanEngine::Create(
      {.selection = {.device = options.device, .require_gpu = options.require_gpu},
       .mask = *mask,
       .instance = {.validation = options.validation, .on_message = [](const vulkan::ValidationMessage& message) {
                      spdlog::error("validation: {}: {}", message.id, message.text);
                    }}});
  if (!engine.ok()) return engine.status();
  if ((*engine)->selection().warning.has_value()) spdlog::warn("{}", *(*engine)->selection().warning);
  std::vector<DeviceDescription> devices = Describe(**engine);
  const VulkanEngine* const device = engine->get();
  return ChosenEngine{.engine = *std::move(engine), .devices = std::move(devices), .device_tests = [device] {
                        return TestsOf(*device);
                      }};
}

// SIGTERM and SIGINT, held back in every thread so that only Wait sees them. Made before any thread is started.
class EndSignals {
 public:
  EndSignals() {
    // A write that fails so says so: to a connection that is gone, beyond the user's file size limit (ulimit -f).
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    sigemptyset(&signals_);
    sigaddset(&signals_, SIGTERM);
    sigaddset(&signals_, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals_, nullptr);
  }

  // Waits for one; from then on the next ends the process at once.
  int Wait() {
    int number = 0;
    sigwait(&signals_, &number);
    pthread_sigmask(SIG_UNBLOCK, &signals_, nullptr);
    return number;
  }

 private:
  sigset_t signals_;
};

// Whole or not at all, as scripts wait for the file to appear.
absl::Status WritePortFile(const std::string& path, const std::vector<std::string>& addresses) {
  const std::string part = path + ".part";
  std::ofstream file(part);
  file << absl::StrJoin(addresses, "\n") << "\n";
  file.close();
  if (!file || std::rename(part.c_str(), path.c_str()) != 0) {
    std::remove(part.c_str());
    return absl::UnavailableError(
        absl::StrCat("cannot write the port file ", path, ": choose another with --port-file"));
  }
  return absl::OkStatus();
}

std::string DeviceInUse(const ChosenEngine& chosen) {
  for (const DeviceDescription& device : chosen.devices) {
    if (device.in_use) return absl::StrCat(device.name, " (", device.type, ", ", device.driver, ")");
  }
  return "none";
}

int Fail(const absl::Status& status) {
  spdlog::error("{}", std::string(status.message()));
  return EXIT_FAILURE;
}

// Null without a data directory.
absl::StatusOr<std::unique_ptr<StateStore>> OpenStore(const ServerOptions& options) {
  if (options.data_dir.empty()) {
    spdlog::warn("sessions live in memory only and end with this server: --data-dir DIR keeps them");
    return std::unique_ptr<StateStore>();
  }
  auto store = SqliteStore::Open(
      {.directory = options.data_dir, .warn = [](const std::string& what) { spdlog::error("{}", what); }});
  if (!store.ok()) return store.status();
  return std::unique_ptr<StateStore>(*std::move(store));
}

// The admin port, where it is asked for.
class AdminPort {
 public:
  // UNAVAILABLE: the address cannot be bound.
  absl::Status Open(const ServerOptions& options, const AdminSite::Sources& sources) {
    site_ = std::make_unique<AdminSite>(sources, options.admin_max_session_gauges);
    auto server = HttpServer::Create({.listen = options.admin_listen,
                                      .host_names = options.admin_hosts,
                                      .warn = [](const std::string& what) { spdlog::error("{}", what); }},
                                     [this](const HttpRequest& request) { return site_->Answer(request); });
    if (!server.ok()) return server.status();
    server_ = *std::move(server);
    spdlog::info("admin port on http://{}/: whoever reaches it reads all statistics", server_->address());
    return absl::OkStatus();
  }
  // Requests that are here get their answer; then nobody looks at the sources any more.
  void Close() { server_.reset(); }

 private:
  std::unique_ptr<AdminSite> site_;
  std::unique_ptr<HttpServer> server_;
};

absl::Status LoadSessions(const ServerOptions& options, const StateStore* store, SessionRegistry& registry) {
  const absl::Time start = absl::Now();
  const auto report = registry.Load();
  if (!report.ok()) return report.status();
  for (const std::string& name : report->damaged) {
    spdlog::error(
        "session \"{}\" in {} is damaged: calls for it answer DATA_LOSS and it is not listed; restore the directory "
        "from a copy, or delete the session",
        name, store->location());
  }
  if (report->num_lost_requests > 0) {
    spdlog::error(
        "{} remembered requests in {} are damaged: a repeat of such an old CreateSession, CloneSession or "
        "DeleteSession is not recognised and taken for a new call; all else is served",
        report->num_lost_requests, store->location());
  }
  if (!options.data_dir.empty()) {
    spdlog::info("{} sessions in {}, listed in {}", report->num_sessions, options.data_dir,
                 absl::FormatDuration(absl::Trunc(absl::Now() - start, absl::Milliseconds(1))));
  }
  return absl::OkStatus();
}

int Serve(const ServerOptions& options, EndSignals& end_signals) {
  // The directory first: that another server has it is known sooner than a device is ready.
  const auto store = OpenStore(options);
  if (!store.ok()) return Fail(store.status());
  auto chosen = ChooseEngine(options);
  if (!chosen.ok()) return Fail(chosen.status());
  SessionRegistry registry(options.session_limits, store->get());
  if (absl::Status status = LoadSessions(options, store->get(), registry); !status.ok()) return Fail(status);
  // Nothing is counted where nobody can ask.
  const auto metrics = options.admin_listen.empty() ? nullptr : std::make_unique<CallMetrics>();
  std::unique_ptr<MeasuredEngine> measured;
  if (metrics != nullptr) measured = std::make_unique<MeasuredEngine>(*chosen->engine, *metrics);
  Engine& engine = measured != nullptr ? *measured : *chosen->engine;
  auto gate = std::make_shared<CallGate>(options.max_in_flight_bytes, metrics.get());
  ServerDescription description{.version = NORMSERVE_VERSION,
                                .start_time = absl::Now(),
                                .devices = chosen->devices,
                                .device_tests = chosen->device_tests,
                                .max_message_bytes = options.max_message_bytes,
                                .max_in_flight_bytes = options.max_in_flight_bytes,
                                .max_saved_forward_bytes = options.max_saved_forward_bytes,
                                .max_watchers = options.max_watchers};
  SavedForwardCache saved_forwards(options.max_saved_forward_bytes);
  auto service = std::make_unique<BatchNormServiceImpl>(registry, engine, saved_forwards, gate, description);
  auto server = GrpcServer::Create(options, std::move(service), gate);
  if (!server.ok()) return Fail(server.status());
  AdminPort admin;
  if (metrics != nullptr) {
    absl::Status status = admin.Open(options, {*metrics, registry, *gate, saved_forwards, description});
    if (!status.ok()) {
      (*server)->Drain(absl::ZeroDuration());
      return Fail(status);
    }
  }
  const SessionLimits& limits = options.session_limits;
  spdlog::info(
      "normserve {} serves on {}; engine {}, device {}; limits: message {} bytes, in flight {} bytes, "
      "{} sessions, state {} bytes, {} channels",
      NORMSERVE_VERSION, absl::StrJoin((*server)->addresses(), ", "), options.engine, DeviceInUse(*chosen),
      options.max_message_bytes, options.max_in_flight_bytes, limits.max_sessions, limits.max_state_bytes,
      limits.max_num_features);
  if (!options.port_file.empty()) {
    if (absl::Status status = WritePortFile(options.port_file, (*server)->addresses()); !status.ok()) {
      (*server)->Drain(absl::ZeroDuration());
      return Fail(status);
    }
  }

  const int signal_number = end_signals.Wait();
  spdlog::info("{}: draining, {} calls in work have {} to finish; a second signal ends at once",
               signal_number == SIGTERM ? "SIGTERM" : "SIGINT", gate->num_calls(),
               absl::FormatDuration(options.drain_timeout));
  if (!(*server)->Drain(options.drain_timeout)) spdlog::warn("calls beyond --drain-timeout were cancelled");
  server->reset();
  admin.Close();
  if (*store != nullptr) (*store)->Close();
  saved_forwards.Clear();
  if (gate->WaitForBytes(kLastBytesTimeout)) {
    chosen->engine.reset();
  } else {
    // The transport still reads memory of the engine's, which must not go before it.
    spdlog::warn("some replies were not taken by their clients");
  }
  spdlog::info("ended");
  spdlog::shutdown();
  // Threads of gRPC are left: see GrpcServer::Create.
  _Exit(EXIT_SUCCESS);
}

}  // namespace
}  // namespace normserve

int main(int argc, char** argv) {
  // Debian 13's Abseil looks for deadlocks and ends the process, but programs built with NDEBUG do not tell it when a
  // mutex is destroyed: another at its address then seems to be locked in a wrong order.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  normserve::EndSignals end_signals;
  const auto parsed = normserve::ParseServerOptions(argc, argv);
  if (const auto* code = std::get_if<normserve::ExitCode>(&parsed)) return code->value;
  const auto& options = std::get<normserve::ServerOptions>(parsed);
  normserve::SetUpLogging(options.log_format, options.log_level);
  return normserve::Serve(options, end_signals);
}
