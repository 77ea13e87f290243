// The forum's puzzle, driven over the network: two deep copies of a layer with equal running statistics, one of which
// sums to about 0 and the other to about 5,800. Shows it, explains it, and shows how it ends.
//
// Source: PyTorch forum, 'Inconsistent Batchnorm behavior in eval and training modes'.
#include <normserve/client.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/examples/forum_text.h"

namespace normserve::examples {
namespace {

using client::BatchNorm;
using client::Client;
using client::ForwardResult;
using client::Mode;
using client::SessionStats;
using client::Tensor;

// As torch.rand(4, 3, 32, 32): uniform in [0, 1). mt19937_64 is the same everywhere; std::uniform_real_distribution is
// not, so the 24 bits that a float holds are taken by hand.
Tensor DrawBatch(uint64_t seed) {
  Tensor batch{.shape = {4, 3, 32, 32}, .values = std::vector<float>(4 * 3 * 32 * 32)};
  std::mt19937_64 generator(seed);
  for (float& value : batch.values) value = static_cast<float>(generator() >> 40) * 0x1p-24f;
  return batch;
}

double Sum(const Tensor& tensor) { return std::accumulate(tensor.values.begin(), tensor.values.end(), 0.0); }

// A name that no other run has.
std::string RandomFolder() {
  std::random_device device;
  return absl::StrFormat("forum/%08x%08x", device(), device());
}

// Deletes its sessions when it goes, however the scenario ended.
class SessionFolder {
 public:
  SessionFolder() = default;
  SessionFolder(const SessionFolder&) = delete;
  SessionFolder& operator=(const SessionFolder&) = delete;
  ~SessionFolder() {
    for (const BatchNorm& session : sessions_) {
      if (const absl::Status status = session.Delete({.timeout = absl::Seconds(5)}); !status.ok()) {
        std::fprintf(stderr, "could not delete session %s: %s\n", session.name().c_str(), status.ToString().c_str());
      }
    }
  }
  void Add(const BatchNorm& session) { sessions_.push_back(session); }

 private:
  std::vector<BatchNorm> sessions_;
};

// Runs bn1's further updates; after each number of them in `counts`, what evaluation gives. The first is already done.
absl::Status RunUpdates(const BatchNorm& bn1, const Tensor& batch, ForumResult& result) {
  int updates = 1;
  for (const int count : {1, 10, 50, 100}) {
    for (; updates < count; ++updates) {
      if (absl::Status status = bn1.Forward(batch).status(); !status.ok()) return status;
    }
    // EVAL for this call alone: bn1's own mode stays TRAIN, and nothing is updated.
    absl::StatusOr<ForwardResult> evaluated = bn1.Forward(batch, {.mode = Mode::kEval});
    if (!evaluated.ok()) return evaluated.status();
    absl::StatusOr<SessionStats> stats = bn1.Stats();
    if (!stats.ok()) return stats.status();
    result.after_updates[count] = {.statistics = stats->statistics, .eval_sum = Sum(evaluated->output)};
  }
  return absl::OkStatus();
}

absl::StatusOr<ForumResult> RunScenario(const Client& client, uint64_t seed) {
  const Tensor batch = DrawBatch(seed);
  const std::string folder = RandomFolder();
  ForumResult result{.seed = seed};
  SessionFolder sessions;

  absl::StatusOr<client::ServerInfo> info = client.GetServerInfo();
  if (!info.ok()) return info.status();
  for (const client::Device& device : info->devices) {
    if (device.in_use && result.device.empty()) result.device = device.name;
  }

  // bn1 = nn.BatchNorm2d(3); bn2 = copy.deepcopy(bn1)
  absl::StatusOr<BatchNorm> bn1 = client.CreateSession({.name = folder + "/bn1", .config = {.num_features = 3}});
  if (!bn1.ok()) return bn1.status();
  sessions.Add(*bn1);
  absl::StatusOr<BatchNorm> bn2 = bn1->Clone(folder + "/bn2");
  if (!bn2.ok()) return bn2.status();
  sessions.Add(*bn2);

  // bn1(x); bn2(x)
  absl::StatusOr<ForwardResult> trained1 = bn1->Forward(batch, {.return_batch_moments = true});
  if (!trained1.ok()) return trained1.status();
  absl::StatusOr<ForwardResult> trained2 = bn2->Forward(batch);
  if (!trained2.ok()) return trained2.status();
  if (!trained1->batch_moments.has_value()) return absl::InternalError("the server sent no batch moments");
  result.train_sum = Sum(trained1->output);
  result.batch_moments = *trained1->batch_moments;

  absl::StatusOr<SessionStats> stats1 = bn1->Stats();
  if (!stats1.ok()) return stats1.status();
  absl::StatusOr<SessionStats> stats2 = bn2->Stats();
  if (!stats2.ok()) return stats2.status();
  result.bn1 = stats1->statistics;
  result.bn2 = stats2->statistics;

  // bn2.eval(); bn2(x)
  if (absl::Status status = bn2->Eval().status(); !status.ok()) return status;
  absl::StatusOr<ForwardResult> evaluated = bn2->Forward(batch);
  if (!evaluated.ok()) return evaluated.status();
  result.eval_sum = Sum(evaluated->output);

  absl::StatusOr<client::Diagnosis> diagnosis = bn2->Diagnose();
  if (!diagnosis.ok()) return diagnosis.status();
  result.diagnosis = *std::move(diagnosis);

  if (absl::Status status = RunUpdates(*bn1, batch, result); !status.ok()) return status;
  return result;
}

std::string JsonLine(const ForumResult& result) {
  nlohmann::ordered_json eval_sums_after;
  for (const auto& [count, after] : result.after_updates) eval_sums_after[std::to_string(count)] = after.eval_sum;
  const nlohmann::ordered_json json = {
      {"train_sum", result.train_sum},
      {"eval_sum", result.eval_sum},
      {"bn1_running_mean", result.bn1.running_mean},
      {"bn1_running_var", result.bn1.running_var},
      {"bn2_running_mean", result.bn2.running_mean},
      {"bn2_running_var", result.bn2.running_var},
      {"statistics_equal", result.StatisticsEqual()},
      {"eval_sums_after", eval_sums_after},
      {"device", result.device},
  };
  return json.dump();
}

// What must hold for any seed; the sums' own spread over seeds is about 35.
absl::Status CheckFacts(const ForumResult& result) {
  if (!result.StatisticsEqual()) return absl::InternalError("the two copies' running statistics differ");
  if (!(std::abs(result.train_sum) < 1)) {
    return absl::InternalError(absl::StrCat("TRAIN sums to ", result.train_sum, ", not to about 0"));
  }
  if (!(std::abs(result.eval_sum - 5800) < 300)) {
    return absl::InternalError(absl::StrCat("EVAL sums to ", result.eval_sum, ", not to about 5,800"));
  }
  return absl::OkStatus();
}

int Fail(const absl::Status& status, const std::string& server) {
  std::fprintf(stderr, "normserve-forum-scenario: %s\n", std::string(status.message()).c_str());
  if (absl::IsUnavailable(status)) {
    std::fprintf(stderr, "Is a server running at %s? Start one with: ./dev serve\n", server.c_str());
  }
  return 1;
}

int Main(int argc, char** argv) {
  std::string server = "127.0.0.1:8001";
  bool as_json = false;
  uint64_t seed = 1;
  CLI::App app(
      "Shows why a batch norm layer sums to 0 in training and to 5,800 in evaluation.\n"
      "Example: normserve-forum-scenario --server 127.0.0.1:8001 --seed 7");
  app.add_option("--server", server, "HOST:PORT of the server")->envname("NORMSERVE_SERVER")->capture_default_str();
  app.add_flag("--json", as_json, "print one line of JSON and nothing else");
  app.add_option("--seed", seed, "draws the input, 0 or more")
      ->capture_default_str()
      ->check([](const std::string& text) {
        const bool digits = !text.empty() && text.find_first_not_of("0123456789") == std::string::npos;
        return digits ? "" : "give a whole number of 0 or more, not " + text;
      });
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }

  absl::StatusOr<Client> client = Client::Connect(server, {.retry = {.max_attempts = 5}});
  if (!client.ok()) return Fail(client.status(), server);
  const absl::StatusOr<ForumResult> result = RunScenario(*client, seed);
  if (!result.ok()) return Fail(result.status(), server);
  std::printf("%s\n", (as_json ? JsonLine(*result) : ForumText(*result)).c_str());
  if (absl::Status status = CheckFacts(*result); !status.ok()) return Fail(status, server);
  return 0;
}

}  // namespace
}  // namespace normserve::examples

int main(int argc, char** argv) { return normserve::examples::Main(argc, argv); }
