// The parts of watch.py: a client that trains, clients that watch, and GetStats of a model as large as ResNet-50.
//
//   watch_bench train --server ADDRESS   prints a JSON line for every line on its standard input
//   watch_bench watch --server ADDRESS   watches until its standard input ends; then prints a JSON line
//   watch_bench stats --server ADDRESS   prints a JSON line for each way to ask
#include <grpcpp/grpcpp.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/synchronization/blocking_counter.h"
#include "normserve/v1/batch_norm_service.grpc.pb.h"

namespace normserve {
namespace {

using SteadyClock = std::chrono::steady_clock;

struct Options {
  std::string server;
  double seconds = 1;  // of each figure
  std::vector<int64_t> shape = {8, 256, 14, 14};
  int watchers = 100;
  int calls = 40;
};

constexpr char kModel[] = "bench/";
constexpr char kSession[] = "bench/trained";
constexpr char kResNet[] = "resnet50/";

[[noreturn]] void Die(const std::string& why) {
  std::fprintf(stderr, "watch_bench: %s\n", why.c_str());
  std::exit(EXIT_FAILURE);
}

void Require(const grpc::Status& status, const std::string& what) {
  if (!status.ok()) Die(absl::StrCat(what, ": ", status.error_message()));
}

void Print(const std::string& line) {
  std::printf("%s\n", line.c_str());
  std::fflush(stdout);
}

std::unique_ptr<v1::BatchNormService::Stub> Connect(const std::string& server) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  // A connection of its own, as separate programs have.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return v1::BatchNormService::NewStub(
      grpc::CreateCustomChannel(server, grpc::InsecureChannelCredentials(), arguments));
}

double MillisecondsSince(SteadyClock::time_point start) {
  return std::chrono::duration<double, std::milli>(SteadyClock::now() - start).count();
}

double Quantile(std::vector<double>& values, double rank) {
  const auto nth = values.begin() + static_cast<ptrdiff_t>(rank * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), nth, values.end());
  return *nth;
}

void CreateSession(v1::BatchNormService::Stub& stub, const std::string& name, int64_t num_features) {
  v1::CreateSessionRequest request;
  request.set_name(name);
  request.mutable_config()->set_num_features(num_features);
  grpc::ClientContext context;
  v1::Session session;
  const grpc::Status status = stub.CreateSession(&context, request, &session);
  if (status.error_code() != grpc::StatusCode::ALREADY_EXISTS) Require(status, "CreateSession");
}

v1::ForwardRequest TrainingBatch(const std::string& name, const std::vector<int64_t>& shape) {
  v1::ForwardRequest request;
  request.set_name(name);
  v1::Tensor& input = *request.mutable_input();
  input.set_data_type(v1::DATA_TYPE_FLOAT32);
  int64_t num_values = 1;
  for (const int64_t dimension : shape) {
    input.add_shape(dimension);
    num_values *= dimension;
  }
  std::vector<float> values(static_cast<size_t>(num_values));
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (float& value : values) value = normal(random);
  input.set_data(values.data(), values.size() * sizeof(float));
  return request;
}

double ForwardMilliseconds(v1::BatchNormService::Stub& stub, const v1::ForwardRequest& request) {
  grpc::ClientContext context;
  v1::ForwardReply reply;
  const auto start = SteadyClock::now();
  Require(stub.Forward(&context, request, &reply), "Forward");
  return MillisecondsSince(start);
}

void Train(const Options& options) {
  const auto stub = Connect(options.server);
  // That of the shape before has other channels.
  v1::DeleteSessionRequest old;
  old.set_name(kSession);
  v1::DeleteSessionReply deleted;
  grpc::ClientContext context;
  const grpc::Status status = stub->DeleteSession(&context, old, &deleted);
  if (status.error_code() != grpc::StatusCode::NOT_FOUND) Require(status, "DeleteSession");
  CreateSession(*stub, kSession, options.shape[1]);
  const v1::ForwardRequest request = TrainingBatch(kSession, options.shape);
  for (std::string line; std::getline(std::cin, line);) {
    std::vector<double> milliseconds;
    const auto start = SteadyClock::now();
    while (MillisecondsSince(start) < options.seconds * 1e3)
      milliseconds.push_back(ForwardMilliseconds(*stub, request));
    const double steps_per_s = static_cast<double>(milliseconds.size()) / MillisecondsSince(start) * 1e3;
    Print(absl::StrFormat(R"({"steps_per_s": %.3f, "p50_ms": %.4f, "p99_ms": %.4f})", steps_per_s,
                          Quantile(milliseconds, 0.5), Quantile(milliseconds, 0.99)));
  }
}

// Half of them the session channel by channel, half its model summed up, each by a connection of its own.
void Watch(const Options& options) {
  std::atomic<int64_t> num_messages = 0;
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::thread> threads;
  absl::BlockingCounter started(options.watchers);
  for (int i = 0; i < options.watchers; ++i) contexts.push_back(std::make_unique<grpc::ClientContext>());
  for (int i = 0; i < options.watchers; ++i) {
    threads.emplace_back([&, i] {
      const auto stub = Connect(options.server);
      v1::WatchStatsRequest request;
      request.mutable_stats()->set_return_comparison(true);
      request.mutable_stats()->set_name(i % 2 == 0 ? kSession : kModel);
      request.mutable_stats()->set_view(i % 2 == 0 ? v1::STATS_VIEW_CHANNELS : v1::STATS_VIEW_SUMMARY);
      const auto reader = stub->WatchStats(contexts[static_cast<size_t>(i)].get(), request);
      v1::WatchStatsReply reply;
      if (!reader->Read(&reply)) Die(absl::StrCat("WatchStats: ", reader->Finish().error_message()));
      started.DecrementCount();
      while (reader->Read(&reply)) ++num_messages;
      reader->Finish();
    });
  }
  started.Wait();
  const auto start = SteadyClock::now();
  Print("{}");
  std::string line;
  while (std::getline(std::cin, line)) continue;
  const double seconds = MillisecondsSince(start) / 1e3;
  const int64_t told = num_messages;
  for (const auto& context : contexts) context->TryCancel();
  for (std::thread& thread : threads) thread.join();
  Print(absl::StrFormat(R"({"messages_per_s": %.3f})", static_cast<double>(told) / seconds));
}

// Channels of the 53 batch norms of ResNet-50, in no particular order: a stem, then per block 1x1, 3x3, 1x1 and once a
// stage the shortcut.
std::vector<int64_t> ResNetChannels() {
  std::vector<int64_t> channels = {64};
  constexpr std::array<std::pair<int, int64_t>, 4> kStages = {{{3, 64}, {4, 128}, {6, 256}, {3, 512}}};
  for (const auto& [blocks, width] : kStages) {
    for (int block = 0; block < blocks; ++block) channels.insert(channels.end(), {width, width, 4 * width});
    channels.push_back(4 * width);
  }
  return channels;
}

void Stats(const Options& options) {
  const auto stub = Connect(options.server);
  const std::vector<int64_t> channels = ResNetChannels();
  for (size_t i = 0; i < channels.size(); ++i) {
    const std::string name = absl::StrCat(kResNet, "layer", i);
    CreateSession(*stub, name, channels[i]);
    for (int batch = 0; batch < 20; ++batch) ForwardMilliseconds(*stub, TrainingBatch(name, {4, channels[i], 7, 7}));
  }
  const auto ask = [&](const char* label, v1::StatsView view, bool compares, bool with_history = false) {
    v1::GetStatsRequest request;
    if (with_history) request.mutable_history_range();
    request.set_name(kResNet);
    request.set_view(view);
    request.set_return_comparison(compares);
    std::vector<double> milliseconds;
    size_t size_bytes = 0;
    for (int call = 0; call < options.calls; ++call) {
      grpc::ClientContext context;
      v1::GetStatsReply reply;
      const auto start = SteadyClock::now();
      Require(stub->GetStats(&context, request, &reply), "GetStats");
      milliseconds.push_back(MillisecondsSince(start));
      if (reply.sessions_size() != static_cast<int>(channels.size())) Die("GetStats leaves layers out");
      size_bytes = reply.ByteSizeLong();
    }
    Print(absl::StrFormat(R"({"asked": "%s", "layers": %d, "p50_ms": %.3f, "p99_ms": %.3f, "reply_bytes": %d})", label,
                          channels.size(), Quantile(milliseconds, 0.5), Quantile(milliseconds, 0.99), size_bytes));
  };
  ask("channels", v1::STATS_VIEW_CHANNELS, false);
  ask("channels, compared", v1::STATS_VIEW_CHANNELS, true);
  ask("summary", v1::STATS_VIEW_SUMMARY, false);
  ask("summary, compared", v1::STATS_VIEW_SUMMARY, true);
  ask("summary, history", v1::STATS_VIEW_SUMMARY, false, /*with_history=*/true);
}

int Main(int argc, char** argv) {
  Options options;
  CLI::App app("Parts of the benchmark watch.py, which runs them.", "watch_bench");
  app.require_subcommand(1);
  app.fallthrough();
  app.add_option("--server", options.server)->required();
  app.add_option("--seconds", options.seconds);
  app.add_option("--shape", options.shape)->delimiter(',')->expected(4);
  app.add_option("--watchers", options.watchers);
  app.add_option("--calls", options.calls);
  app.add_subcommand("train")->callback([&] { Train(options); });
  app.add_subcommand("watch")->callback([&] { Watch(options); });
  app.add_subcommand("stats")->callback([&] { Stats(options); });
  CLI11_PARSE(app, argc, argv);
  return 0;
}

}  // namespace
}  // namespace normserve

int main(int argc, char** argv) { return normserve::Main(argc, argv); }
