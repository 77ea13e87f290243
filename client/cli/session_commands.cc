#include "client/cli/session_commands.h"

#include <cstdio>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/named.h"
#include "client/cli/npy.h"
#include "client/cli/session_text.h"

namespace normserve::cli {
namespace {

using client::BatchNorm;
using client::Client;
using client::Session;

void Print(const std::string& text) { std::fwrite(text.data(), 1, text.size(), stdout); }

void PrintSession(const CommandLine& command_line, const Session& session) {
  Print(command_line.json ? ToJson(session).dump() + "\n" : SessionText(session));
}

// The float32 vector in `path`; empty for no path.
absl::StatusOr<std::vector<float>> ReadParameter(const std::string& path) {
  if (path.empty()) return std::vector<float>();
  absl::StatusOr<client::Tensor> tensor = ReadNpyTensor(path);
  if (!tensor.ok()) return tensor.status();
  if (tensor->shape.size() != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": has ", tensor->shape.size(), " dimensions; one value a channel is wanted: [C]"));
  }
  return std::move(tensor->values);
}

}  // namespace

client::Convention ConventionOf(const std::string& text) {
  return text == "pytorch" ? client::Convention::kPyTorch
         : text == "keras" ? client::Convention::kKeras
         : text == "flax"  ? client::Convention::kFlax
         : text == "onnx"  ? client::Convention::kOnnx
                           : client::Convention::kUnspecified;
}

client::SessionConfig MakeConfig(const CreateOptions& options) {
  client::SessionConfig config{
      .num_features = options.num_features, .epsilon = options.epsilon, .momentum = options.momentum};
  if (options.averaging == "cumulative") config.averaging = client::Averaging::kCumulative;
  if (options.averaging == "zero_debiased") config.averaging = client::Averaging::kZeroDebiased;
  if (options.no_affine) config.affine = false;
  if (options.no_running_stats) config.track_running_stats = false;
  if (options.running_variance == "unbiased") config.running_variance = client::RunningVariance::kUnbiased;
  if (options.running_variance == "biased") config.running_variance = client::RunningVariance::kBiased;
  if (options.skip_non_finite) config.non_finite_policy = client::NonFinitePolicy::kSkipUpdate;
  config.durability = DurabilityOf(options.durability);
  config.labels = options.labels;
  config.convention = ConventionOf(options.convention);
  return config;
}

namespace {

absl::StatusOr<client::NewSession> ReadNewSession(const CreateOptions& options) {
  client::NewSession session{.name = options.name, .config = MakeConfig(options), .mode = ModeOf(options.mode)};
  absl::StatusOr<std::vector<float>> weight = ReadParameter(options.weight);
  if (!weight.ok()) return weight.status();
  absl::StatusOr<std::vector<float>> bias = ReadParameter(options.bias);
  if (!bias.ok()) return bias.status();
  session.parameters = {.weight = *std::move(weight), .bias = *std::move(bias)};
  if (options.running_mean.empty() && options.running_var.empty()) return session;

  // One alone: the other starts as it would have.
  const auto channels = static_cast<size_t>(options.num_features);
  client::RunningStatistics statistics{.running_mean = std::vector<double>(channels, 0.0),
                                       .running_var = std::vector<double>(channels, 1.0)};
  for (const auto& [path, values] : {std::pair{options.running_mean, &statistics.running_mean},
                                     std::pair{options.running_var, &statistics.running_var}}) {
    if (path.empty()) continue;
    absl::StatusOr<std::vector<double>> read = ReadNpyVector(path);
    if (!read.ok()) return read.status();
    *values = *std::move(read);
  }
  session.statistics = std::move(statistics);
  return session;
}

}  // namespace

int Create(const CommandLine& command_line, const CreateOptions& options) {
  absl::StatusOr<client::NewSession> wanted = ReadNewSession(options);
  if (!wanted.ok()) return Fail(command_line, wanted.status());
  absl::StatusOr<Client> client = MakeClient(command_line);
  if (!client.ok()) return Fail(command_line, client.status());
  absl::StatusOr<BatchNorm> bn = client->CreateSession(*wanted);
  if (!bn.ok()) return Fail(command_line, bn.status());
  if (!command_line.json) {
    Print(bn->name() + "\n");
    return kOk;
  }
  absl::StatusOr<Session> session = bn->Describe();
  if (!session.ok()) return Fail(command_line, session.status());
  PrintSession(command_line, *session);
  return kOk;
}

int List(const CommandLine& command_line, const client::ListSessionsOptions& options) {
  absl::StatusOr<Client> client = MakeClient(command_line);
  if (!client.ok()) return Fail(command_line, client.status());
  absl::StatusOr<std::vector<Session>> sessions = client->ListSessions(options);
  if (!sessions.ok()) return Fail(command_line, sessions.status());
  if (command_line.json) {
    nlohmann::ordered_json json = nlohmann::ordered_json::array();
    for (const Session& session : *sessions) json.push_back(ToJson(session));
    Print(json.dump() + "\n");
    return kOk;
  }
  if (sessions->empty()) {
    Print(absl::StrCat("no sessions", options.prefix.empty() ? "" : " under ", options.prefix,
                       options.labels.empty() ? "" : " with ", LabelsText(options.labels), "\n"));
    return kOk;
  }
  Print(SessionTable(*sessions));
  return kOk;
}

int Show(const CommandLine& command_line, const std::string& session) {
  absl::StatusOr<Client> client = MakeClient(command_line);
  if (!client.ok()) return Fail(command_line, client.status());
  absl::StatusOr<Session> described = client->Attach(session).Describe();
  if (!described.ok()) return Fail(command_line, described.status());
  PrintSession(command_line, *described);
  return kOk;
}

int Clone(const CommandLine& command_line, const std::string& session, const std::string& clone_name) {
  absl::StatusOr<Client> client = MakeClient(command_line);
  if (!client.ok()) return Fail(command_line, client.status());
  absl::StatusOr<BatchNorm> clone = client->Attach(session).Clone(clone_name);
  if (!clone.ok()) return Fail(command_line, clone.status());
  if (!command_line.json) {
    Print(clone->name() + "\n");
    return kOk;
  }
  absl::StatusOr<Session> described = clone->Describe();
  if (!described.ok()) return Fail(command_line, described.status());
  PrintSession(command_line, *described);
  return kOk;
}

int Delete(const CommandLine& command_line, const std::string& session) {
  absl::StatusOr<Client> client = MakeClient(command_line);
  if (!client.ok()) return Fail(command_line, client.status());
  std::vector<std::string> names = {session};
  if (IsModel(session)) {
    const auto deleted = client->AttachModel(session).Delete();
    if (!deleted.ok()) return Fail(command_line, deleted.status());
    names.clear();
    for (const client::DeletedSession& each : *deleted) names.push_back(each.name);
  } else if (absl::Status status = client->Attach(session).Delete(); !status.ok()) {
    return Fail(command_line, status);
  }
  if (command_line.json) {
    Print(JsonLine(session, names, [](const std::string& name) { return nlohmann::ordered_json{{"deleted", name}}; }));
    return kOk;
  }
  for (const std::string& name : names) Print(absl::StrCat("deleted ", name, "\n"));
  return kOk;
}

int SetMode(const CommandLine& command_line, const std::string& session, const std::string& mode) {
  absl::StatusOr<Client> client = MakeClient(command_line);
  if (!client.ok()) return Fail(command_line, client.status());
  const auto changed =
      CallNamed<Session>(*client, session, [&](const auto& named) { return named.SetMode(ModeOf(mode)); });
  if (!changed.ok()) return Fail(command_line, changed.status());
  if (command_line.json) {
    Print(JsonLine(session, *changed, [](const Session& each) { return ToJson(each); }));
    return kOk;
  }
  for (const Session& each : *changed) {
    Print(absl::StrFormat("%s is in %s, generation %d\n", each.name, ModeName(each.mode), each.generation));
  }
  return kOk;
}

int SetParameters(const CommandLine& command_line, const std::string& session, const std::string& weight,
                  const std::string& bias) {
  client::Parameters parameters;
  for (const auto& [path, values] : {std::pair{&weight, &parameters.weight}, std::pair{&bias, &parameters.bias}}) {
    absl::StatusOr<std::vector<float>> read = ReadParameter(*path);
    if (!read.ok()) return Fail(command_line, read.status());
    *values = *std::move(read);
  }
  absl::StatusOr<Client> client = MakeClient(command_line);
  if (!client.ok()) return Fail(command_line, client.status());
  const absl::StatusOr<Session> changed = client->Attach(session).SetParameters(parameters);
  if (!changed.ok()) return Fail(command_line, changed.status());
  Print(command_line.json
            ? ToJson(*changed).dump() + "\n"
            : absl::StrFormat("%s has new parameters, generation %d\n", changed->name, changed->generation));
  return kOk;
}

}  // namespace normserve::cli
