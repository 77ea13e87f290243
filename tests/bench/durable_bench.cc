// Training Forwards against a server that has a data directory: latency and throughput of each durability, and what
// this disk's fdatasync takes. Run by durable.py, which starts the server and makes a table of it.
//
// Prints one JSON object a line, as it is measured: the server, then per round and shape the disk, then the figures.
#include <fcntl.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <time.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/notification.h"
#include "normserve/v1/batch_norm_service.grpc.pb.h"

namespace normserve {
namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr double kTurnSeconds = 0.1;
constexpr double kSyncSeconds = 0.3;
constexpr char kForwardMethod[] = "/normserve.v1.BatchNormService/Forward";

struct Options {
  std::string server;
  pid_t server_pid = 0;
  std::string directory;  // of the file that is synced
  int rounds = 1;         // after a first one that is not counted
  double seconds = 1;     // of each figure
  std::vector<int> callers = {1, 8, 64};
};

// NONE comes before and after: the durable ones are compared with both, and both with each other tell how noisy it is.
struct Level {
  const char* label;
  v1::Durability durability;
};
constexpr Level kLevels[] = {{"NONE", v1::DURABILITY_NONE},
                             {"COMMIT", v1::DURABILITY_COMMIT},
                             {"FLUSH", v1::DURABILITY_FLUSH},
                             {"NONE again", v1::DURABILITY_NONE}};

using Shape = std::array<int64_t, 4>;  // [N, C, H, W]
constexpr Shape kShapes[] = {{4, 3, 32, 32}, {8, 256, 14, 14}};

std::string Text(const Shape& shape) { return absl::StrCat("[", absl::StrJoin(shape, ","), "]"); }

[[noreturn]] void Die(const std::string& why) {
  std::fprintf(stderr, "durable_bench: %s\n", why.c_str());
  std::exit(EXIT_FAILURE);
}

void Require(const grpc::Status& status, const std::string& what) {
  if (!status.ok()) Die(absl::StrCat(what, ": ", status.error_message()));
}

void Print(const std::string& line) {
  std::printf("%s\n", line.c_str());
  std::fflush(stdout);
}

// Field 31 of a ForwardRequest as bytes, which all calls share: nothing is encoded or copied for a call.
grpc::Slice EncodeInput(const Shape& shape) {
  v1::ForwardRequest request;
  v1::Tensor* input = request.mutable_input();
  input->set_data_type(v1::DATA_TYPE_FLOAT32);
  int64_t num_values = 1;
  for (int64_t dimension : shape) {
    input->add_shape(dimension);
    num_values *= dimension;
  }
  std::vector<float> values(static_cast<size_t>(num_values));
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (float& value : values) value = normal(random);
  input->set_data(values.data(), values.size() * sizeof(float));
  return grpc::Slice(request.SerializeAsString());
}

// What calls took, of those that ended in time.
struct Latencies {
  std::vector<double> milliseconds;
  double seconds = 0;
  double server_cpu_ms = 0;  // of all calls

  void Add(const Latencies& more) {
    milliseconds.insert(milliseconds.end(), more.milliseconds.begin(), more.milliseconds.end());
    seconds += more.seconds;
    server_cpu_ms += more.server_cpu_ms;
  }

  // Of rank 0 (the fastest) to 1.
  double Quantile(double rank) {
    const auto nth = milliseconds.begin() + static_cast<ptrdiff_t>(rank * static_cast<double>(milliseconds.size() - 1));
    std::nth_element(milliseconds.begin(), nth, milliseconds.end());
    return *nth;
  }
};

double MillisecondsSince(SteadyClock::time_point start) {
  return std::chrono::duration<double, std::milli>(SteadyClock::now() - start).count();
}

// The processor time that the server has used. Other programs disturb it far less than they do any clock.
double ServerCpuMilliseconds(pid_t server) {
  clockid_t clock;
  timespec time;
  if (clock_getcpuclockid(server, &clock) != 0 || clock_gettime(clock, &time) != 0) Die("the server is gone");
  return static_cast<double>(time.tv_sec) * 1e3 + static_cast<double>(time.tv_nsec) * 1e-6;
}

// A caller with a connection of its own, as separate programs have: on a shared one, calls would wait for each other in
// the transport. Its thread polls its own queue, so that no other thread of the client's takes part in a call.
class Caller {
 public:
  Caller(const std::string& server, int index) : index_(index) {
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(-1);
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
    const auto channel = grpc::CreateCustomChannel(server, grpc::InsecureChannelCredentials(), arguments);
    stub_ = v1::BatchNormService::NewStub(channel);
    generic_stub_ = std::make_unique<grpc::GenericStub>(channel);
  }

  v1::BatchNormService::Stub& stub() { return *stub_; }

  // The name of this caller's session of a shape and level.
  std::string SessionName(const Shape& shape, const Level& level) const {
    std::string name = absl::StrCat("bench/", absl::StrJoin(shape, "x"), "/", level.label, "-", index_);
    std::replace(name.begin(), name.end(), ' ', '-');
    return name;
  }

  void OpenSession(const Shape& shape, const Level& level) {
    grpc::ClientContext context;
    v1::CreateSessionRequest request;
    request.set_name(SessionName(shape, level));
    request.mutable_config()->set_num_features(shape[1]);
    request.mutable_config()->set_durability(level.durability);
    v1::Session session;
    Require(stub_->CreateSession(&context, request, &session), "CreateSession");
  }

  // One call, its reply left unread.
  void Forward(const std::string& session, const grpc::Slice& input, grpc::ByteBuffer& reply) {
    v1::ForwardRequest head;
    head.set_name(session);
    // As long as the UUIDs that clients make.
    head.set_request_id(absl::StrFormat("%016x-%02x-%016x", nonce_, index_, ++num_calls_));
    const grpc::Slice slices[] = {grpc::Slice(head.SerializeAsString()), input};
    const grpc::ByteBuffer request(slices, 2);
    grpc::ClientContext context;
    grpc::Status status;
    const auto call = generic_stub_->PrepareUnaryCall(&context, kForwardMethod, request, &queue_);
    call->StartCall();
    call->Finish(&reply, &status, nullptr);
    void* tag = nullptr;
    bool ok = false;
    queue_.Next(&tag, &ok);
    Require(status, "Forward");
  }

 private:
  const int index_;
  const uint64_t nonce_ = absl::Uniform<uint64_t>(absl::BitGen());
  uint64_t num_calls_ = 0;
  std::unique_ptr<v1::BatchNormService::Stub> stub_;
  std::unique_ptr<grpc::GenericStub> generic_stub_;
  grpc::CompletionQueue queue_;
};

using Callers = std::vector<std::unique_ptr<Caller>>;

// What was asked for is what is measured: once before all, of each session.
void CheckReply(grpc::ByteBuffer& bytes, const Level& level, const Shape& shape) {
  grpc::Slice whole;
  v1::ForwardReply reply;
  if (!bytes.DumpToSingleSlice(&whole).ok() || !reply.ParseFromArray(whole.begin(), static_cast<int>(whole.size())) ||
      reply.durability() != level.durability || reply.num_batches_tracked() != 1 ||
      reply.output().shape_size() != static_cast<int>(shape.size())) {
    Die(absl::StrCat("a reply is not that of a first training Forward with durability ", level.label));
  }
}

void OpenSessions(Callers& callers, const Shape& shape, const grpc::Slice& input) {
  for (const auto& caller : callers) {
    for (const Level& level : kLevels) {
      caller->OpenSession(shape, level);
      grpc::ByteBuffer reply;
      caller->Forward(caller->SessionName(shape, level), input, reply);
      CheckReply(reply, level, shape);
    }
  }
}

// The first `num_callers` call for a while, each again as soon as it has its reply.
Latencies Measure(pid_t server, Callers& callers, int num_callers, const Shape& shape, const Level& level,
                  const grpc::Slice& input, double seconds) {
  std::vector<Latencies> by_caller(static_cast<size_t>(num_callers));
  absl::BlockingCounter ready(num_callers);
  absl::Notification go;
  std::atomic<bool> over = false;
  std::atomic<int64_t> num_done = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < num_callers; ++i) {
    threads.emplace_back([&, i] {
      Caller& caller = *callers[static_cast<size_t>(i)];
      const std::string session = caller.SessionName(shape, level);
      ready.DecrementCount();
      go.WaitForNotification();
      while (!over.load(std::memory_order_relaxed)) {
        grpc::ByteBuffer reply;
        const auto start = SteadyClock::now();
        caller.Forward(session, input, reply);
        const double milliseconds = MillisecondsSince(start);
        // Those that end after the others have stopped had the server to themselves.
        if (over.load(std::memory_order_relaxed)) break;
        by_caller[static_cast<size_t>(i)].milliseconds.push_back(milliseconds);
        num_done.fetch_add(1, std::memory_order_relaxed);
      }
    });
  }
  ready.Wait();
  const double cpu_before = ServerCpuMilliseconds(server);
  const auto start = SteadyClock::now();
  go.Notify();
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  while (num_done.load(std::memory_order_relaxed) == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  over.store(true, std::memory_order_relaxed);
  Latencies all{.seconds = MillisecondsSince(start) * 1e-3,
                .server_cpu_ms = ServerCpuMilliseconds(server) - cpu_before};
  for (std::thread& thread : threads) thread.join();
  for (const Latencies& one : by_caller) all.Add(one);
  return all;
}

// Appends 8 KB and syncs, again and again, as a journal does.
Latencies MeasureSync(const std::string& directory, double seconds) {
  const std::string path = directory + "/synced";
  const int file = open(path.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_APPEND | O_CLOEXEC, 0600);
  if (file < 0) Die(absl::StrCat("cannot make ", path));
  const std::string piece(8192, 'x');
  Latencies all;
  const auto begin = SteadyClock::now();
  do {
    const auto start = SteadyClock::now();
    if (write(file, piece.data(), piece.size()) != static_cast<ssize_t>(piece.size()) || fdatasync(file) != 0) {
      Die(absl::StrCat("cannot write and sync ", path));
    }
    all.milliseconds.push_back(MillisecondsSince(start));
  } while (MillisecondsSince(begin) < seconds * 1e3);
  close(file);
  unlink(path.c_str());
  return all;
}

void DescribeServer(Caller& caller) {
  grpc::ClientContext context;
  v1::ServerInfo info;
  Require(caller.stub().GetServerInfo(&context, v1::GetServerInfoRequest(), &info), "GetServerInfo");
  std::string device = "the reference engine";
  for (const v1::Device& one : info.devices()) {
    if (one.in_use()) device = one.name();
  }
  Print(absl::StrFormat(R"({"device": "%s", "version": "%s"})", device, info.version()));
}

// All levels of one shape and number of callers, in turn. One caller's take turns often, as a slow spell of the machine
// is longer than what is to be seen; many need their time to fill the server.
void MeasureLevels(const Options& options, Callers& callers, int num_callers, int round, const Shape& shape,
                   const grpc::Slice& input) {
  const int num_turns = num_callers == 1 ? static_cast<int>(std::ceil(options.seconds / kTurnSeconds)) : 1;
  std::array<Latencies, std::size(kLevels)> all;
  for (int turn = 0; turn < num_turns; ++turn) {
    for (size_t i = 0; i < all.size(); ++i) {
      all[i].Add(
          Measure(options.server_pid, callers, num_callers, shape, kLevels[i], input, options.seconds / num_turns));
    }
  }
  for (size_t i = 0; i < all.size(); ++i) {
    const auto num_calls = static_cast<double>(all[i].milliseconds.size());
    Print(absl::StrFormat(R"({"round": %d, "shape": "%s", "callers": %d, "level": "%s", "p50_ms": %.4f, )"
                          R"("p99_ms": %.4f, "calls_per_s": %.1f, "server_cpu_ms": %.4f})",
                          round, Text(shape), num_callers, kLevels[i].label, all[i].Quantile(0.5),
                          all[i].Quantile(0.99), num_calls / all[i].seconds, all[i].server_cpu_ms / num_calls));
  }
}

void Run(const Options& options) {
  Callers callers;
  const int num_callers = *std::max_element(options.callers.begin(), options.callers.end());
  for (int i = 0; i < num_callers; ++i) callers.push_back(std::make_unique<Caller>(options.server, i));
  DescribeServer(*callers.front());
  std::vector<grpc::Slice> inputs;
  for (const Shape& shape : kShapes) {
    inputs.push_back(EncodeInput(shape));
    OpenSessions(callers, shape, inputs.back());
  }
  for (int round = 0; round <= options.rounds; ++round) {
    for (size_t s = 0; s < std::size(kShapes); ++s) {
      Latencies sync = MeasureSync(options.directory, std::min(options.seconds, kSyncSeconds));
      Print(absl::StrFormat(R"({"round": %d, "fdatasync_p50_ms": %.4f, "fdatasync_p99_ms": %.4f})", round,
                            sync.Quantile(0.5), sync.Quantile(0.99)));
      for (const int num : options.callers) MeasureLevels(options, callers, num, round, kShapes[s], inputs[s]);
    }
  }
}

}  // namespace
}  // namespace normserve

int main(int argc, char** argv) {
  normserve::Options options;
  CLI::App app("Measures training Forwards of each durability. Run it as ./dev bench durable.", "durable_bench");
  app.add_option("--server", options.server)->required();
  app.add_option("--server-pid", options.server_pid)->required();
  app.add_option("--directory", options.directory)->required();
  app.add_option("--rounds", options.rounds)->check(CLI::PositiveNumber);
  app.add_option("--seconds", options.seconds)->check(CLI::PositiveNumber);
  app.add_option("--callers", options.callers)->check(CLI::PositiveNumber)->delimiter(',');
  CLI11_PARSE(app, argc, argv);
  normserve::Run(options);
  return EXIT_SUCCESS;
}
