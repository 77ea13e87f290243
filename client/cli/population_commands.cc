#include "client/cli/population_commands.h"

#include <unistd.h>

#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <tuple>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/moments_file.h"
#include "client/cli/named.h"
#include "client/cli/npy.h"
#include "client/cli/session_text.h"

namespace normserve::cli {
namespace {

using client::Client;
using nlohmann::ordered_json;

void Print(const std::string& text) { std::fwrite(text.data(), 1, text.size(), stdout); }

// One file's data; `tensor` holds the values of a batch.
struct Part {
  std::string id;
  client::Data data;
  client::Tensor tensor;
};

// The id and the path that an argument names.
std::pair<std::string, std::string> IdAndPath(const std::string& file) {
  // An id has no '/', a path may have a '='.
  const size_t equals = file.find('=');
  if (equals != std::string::npos && equals > 0 && file.find('/') > equals) {
    return {file.substr(0, equals), file.substr(equals + 1)};
  }
  const size_t slash = file.rfind('/');
  const std::string name = file.substr(slash == std::string::npos ? 0 : slash + 1);
  return {name.substr(0, name.rfind('.')), file};
}

// INVALID_ARGUMENT: two different files have one id, under which only one of them would count.
absl::Status CheckIds(const PartFiles& parts) {
  std::map<std::string, std::string> seen;
  for (const std::string& file : parts.files) {
    const auto [other, is_new] = seen.emplace(IdAndPath(file).first, file);
    if (is_new || IdAndPath(other->second).second == IdAndPath(file).second) continue;
    return absl::InvalidArgumentError(absl::StrCat(other->second, " and ", file, " have the same id \"", other->first,
                                                   "\", and a part counts once: give one another id, as ID=FILE"));
  }
  return absl::OkStatus();
}

absl::StatusOr<Part> ReadPart(const std::string& file) {
  Part part;
  std::string path;
  std::tie(part.id, path) = IdAndPath(file);
  if (IsMomentsFile(path)) {
    auto data = ReadMomentsFile(path);
    if (!data.ok()) return data.status();
    part.data = *std::move(data);
    return part;
  }
  auto tensor = ReadNpyTensor(path);
  if (!tensor.ok()) return tensor.status();
  part.tensor = *std::move(tensor);
  return part;
}

// "12 of 200 parts" on stderr: a line that is written over on a terminal, else every tenth part of them.
class Progress {
 public:
  explicit Progress(size_t total) : total_(total) {}

  void Done(size_t number) const {
    if (total_ < 2) return;
    const bool is_last = number == total_;
    if (isatty(STDERR_FILENO) != 0) {
      std::fprintf(stderr, "\r%zu of %zu parts%s", number, total_, is_last ? "\n" : "");
    } else if (is_last || number * 10 / total_ != (number - 1) * 10 / total_) {
      std::fprintf(stderr, "%zu of %zu parts\n", number, total_);
    }
  }

 private:
  const size_t total_;
};

// Sends one file after the other; the answers to the last are what is shown. None is sent if one cannot be read.
template <typename T, typename Send>
absl::StatusOr<std::vector<T>> SendAll(const PartFiles& parts, Send send) {
  std::vector<T> answers;
  for (size_t i = 0; parts.files.size() > 1 && i < parts.files.size(); ++i) {
    if (absl::Status status = ReadPart(parts.files[i]).status(); !status.ok()) return status;
  }
  const Progress progress(parts.files.size());
  for (size_t i = 0; i < parts.files.size(); ++i) {
    auto part = ReadPart(parts.files[i]);
    if (!part.ok()) return part.status();
    if (!part->tensor.shape.empty()) part->data.batch = part->tensor;
    absl::StatusOr<std::vector<T>> sent = send(*part);
    if (!sent.ok()) {
      const std::string taken = i == 0 ? "" : absl::StrCat(" (the server has taken the ", i, " before it)");
      return absl::Status(sent.status().code(), absl::StrCat(parts.files[i], ": ", sent.status().message(), taken));
    }
    answers = *std::move(sent);
    progress.Done(i + 1);
  }
  return answers;
}

// Sends the parts of a merge or a calibration; `end` then commits or drops it, or where there are none says how it
// stands. Both call a client::BatchNorm or a client::Model.
template <typename T, typename Send, typename End>
absl::StatusOr<std::vector<T>> Gather(const CommandLine& command_line, const GatheringOptions& options, Send send,
                                      End end) {
  if (absl::Status status = CheckIds(options.parts); !status.ok()) return status;
  const absl::StatusOr<Client> client = MakeClient(command_line);
  if (!client.ok()) return client.status();
  absl::StatusOr<std::vector<T>> gathered = SendAll<T>(options.parts, [&](const Part& part) {
    return CallNamed<T>(*client, options.session, [&](const auto& named) { return send(named, part); });
  });
  const bool is_end = options.parts.files.empty() || options.commit || options.drop;
  return gathered.ok() && is_end ? CallNamed<T>(*client, options.session, end) : gathered;
}

template <typename T, typename Json, typename Text>
int Show(const CommandLine& command_line, const std::string& session, const absl::StatusOr<std::vector<T>>& answers,
         Json json, Text text) {
  if (!answers.ok()) return Fail(command_line, answers.status());
  if (command_line.json) {
    Print(JsonLine(session, *answers, json));
  } else {
    for (const T& each : *answers) Print(text(each));
  }
  return kOk;
}

ordered_json ObservedJson(const client::Observed& observed) {
  ordered_json json = {
      {"name", observed.name}, {"uid", observed.uid}, {"generation", observed.generation}, {"count", observed.count}};
  if (observed.moments.has_value()) json["moments"] = MomentsJson(*observed.moments);
  return json;
}

ordered_json MergedJson(const client::Merged& merged) {
  ordered_json json = {{"name", merged.name},
                       {"uid", merged.uid},
                       {"generation", merged.generation},
                       {"num_parts", merged.num_parts},
                       {"committed", merged.committed}};
  if (merged.merged.has_value()) json["merged"] = MomentsJson(*merged.merged);
  if (merged.committed) {
    json["variance_within"] = merged.variance_within;
    json["variance_between"] = merged.variance_between;
  }
  return json;
}

ordered_json CalibratedJson(const client::Calibrated& calibrated) {
  ordered_json json = {{"name", calibrated.name},
                       {"uid", calibrated.uid},
                       {"generation", calibrated.generation},
                       {"num_batches", calibrated.num_batches},
                       {"committed", calibrated.committed}};
  if (!calibrated.committed) return json;
  for (const auto& [key, statistics] :
       {std::pair{"before", &calibrated.before}, std::pair{"after", &calibrated.after}}) {
    json[key] = {{"running_mean", statistics->running_mean},
                 {"running_var", statistics->running_var},
                 {"num_batches_tracked", statistics->num_batches_tracked}};
  }
  return json;
}

double MeanOf(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return values.empty() ? 0 : sum / static_cast<double>(values.size());
}

// "1 part", "3 parts".
std::string Counted(int64_t count, const char* one, const char* many) {
  return absl::StrCat(count, " ", count == 1 ? one : many);
}
std::string Parts(int64_t count) { return Counted(count, "part", "parts"); }
std::string Batches(int64_t count) { return Counted(count, "batch", "batches"); }

std::string MergedText(const client::Merged& merged) {
  if (!merged.committed) return absl::StrFormat("%s has %s\n", merged.name, Parts(merged.num_parts));
  return absl::StrFormat(
      "%s is %s %s, generation %d; variance within them %.4g, between them %.4g (mean over channels)\n", merged.name,
      merged.merged.has_value() ? "merged of" : "compared over", Parts(merged.num_parts), merged.generation,
      MeanOf(merged.variance_within), MeanOf(merged.variance_between));
}

std::string CalibratedText(const client::Calibrated& calibrated, const std::string& to_snapshot) {
  const std::string batches = Batches(calibrated.num_batches);
  if (!calibrated.committed) return absl::StrFormat("%s has %s\n", calibrated.name, batches);
  const double before = MeanOf(calibrated.before.running_var), after = MeanOf(calibrated.after.running_var);
  if (!to_snapshot.empty()) {
    return absl::StrFormat(
        "%s has the snapshot %s, calibrated on %s, and stays as it is, generation %d; running "
        "variance of the snapshot %.4g, of the session %.4g (mean over channels)\n",
        calibrated.name, to_snapshot, batches, calibrated.generation, after, before);
  }
  return absl::StrFormat(
      "%s is calibrated on %s, generation %d; running variance %.4g, was %.4g (mean over channels)\n", calibrated.name,
      batches, calibrated.generation, after, before);
}

}  // namespace

int Observe(const CommandLine& command_line, const ObserveCommandOptions& options) {
  if (absl::Status status = options.once ? CheckIds(options.parts) : absl::OkStatus(); !status.ok())
    return Fail(command_line, status);
  absl::StatusOr<Client> client = MakeClient(command_line);
  if (!client.ok()) return Fail(command_line, client.status());
  bool reset = options.reset;
  const auto send = [&](const Part& part) {
    const client::ObserveOptions call = {
        .part_id = options.once ? part.id : "", .dry_run = options.dry_run, .reset = std::exchange(reset, false)};
    return CallNamed<client::Observed>(*client, options.session,
                                       [&](const auto& named) { return named.Observe(part.data, call); });
  };
  absl::StatusOr<std::vector<client::Observed>> observed;
  if (options.parts.files.empty()) {
    observed = send(Part{});
  } else {
    observed = SendAll<client::Observed>(options.parts, send);
  }
  return Show(command_line, options.session, observed, ObservedJson, [&](const client::Observed& each) {
    return absl::StrFormat("%s %s %d values a channel\n", each.name,
                           options.dry_run ? "would have observed" : "has observed", each.count);
  });
}

int ReadMoments(const CommandLine& command_line, const MomentsCommandOptions& options) {
  absl::StatusOr<Client> client = MakeClient(command_line);
  if (!client.ok()) return Fail(command_line, client.status());
  client::MomentsOptions call = {.first_channel = options.first_channel, .num_channels = options.num_channels};
  if (options.source == "last-batch") call.source = client::MomentsSource::kLastBatch;
  if (options.source == "shadow") call.source = client::MomentsSource::kShadow;
  if (options.source == "observed-before") call.source = client::MomentsSource::kObservedBefore;
  const auto found = CallNamed<client::SessionMoments>(*client, options.session,
                                                       [&](const auto& named) { return named.ReadMoments(call); });
  if (!found.ok()) return Fail(command_line, found.status());
  if (command_line.json) {
    // As merge and calibrate read it: of a model by layer, those that have seen something.
    ordered_json json = ordered_json::object();
    for (const client::SessionMoments& each : *found) {
      if (!IsModel(options.session)) {
        json = MomentsJson(each.moments);
      } else if (each.moments.count > 0) {
        json[each.name.substr(options.session.size())] = MomentsJson(each.moments);
      }
    }
    Print(json.dump() + "\n");
    return kOk;
  }
  for (const client::SessionMoments& each : *found) {
    Print(absl::StrFormat("%s   %s   %d values a channel\n", each.name, options.source, each.moments.count));
    if (IsModel(options.session) || each.moments.count == 0) continue;
    std::vector<double> variances;
    for (size_t c = 0; c < each.moments.m2.size(); ++c) variances.push_back(each.moments.BiasedVariance(c));
    Print("\n" + ChannelTable(each.first_channel, {{"mean", each.moments.mean}, {"var", variances}}));
  }
  return kOk;
}

int Merge(const CommandLine& command_line, const MergeCommandOptions& options) {
  const GatheringOptions& gathering = options.gathering;
  client::MergeOptions end = {.commit = gathering.commit, .drop = gathering.drop};
  if (options.policy == "weighted") end.policy = client::MergePolicy::kWeighted;
  if (options.policy == "keep-local") end.policy = client::MergePolicy::kKeepLocal;
  const auto merged = Gather<client::Merged>(
      command_line, gathering,
      [&](const auto& named, const Part& part) -> decltype(named.Merge(gathering.id, {}, {})) {
        if (part.data.batch.has_value()) return absl::InvalidArgumentError("is a batch: send moments, .json or .npz");
        return named.Merge(gathering.id, {{.id = part.id, .data = part.data}}, {});
      },
      [&](const auto& named) { return named.Merge(gathering.id, {}, end); });
  return Show(command_line, gathering.session, merged, MergedJson, [&](const client::Merged& each) {
    return gathering.drop ? absl::StrFormat("%s has dropped %s\n", each.name, Parts(each.num_parts)) : MergedText(each);
  });
}

int Calibrate(const CommandLine& command_line, const CalibrateCommandOptions& options) {
  const GatheringOptions& gathering = options.gathering;
  client::CalibrateOptions end = {
      .commit = gathering.commit, .to_snapshot = options.to_snapshot, .drop = gathering.drop};
  if (options.estimator == "algorithm-2") end.estimator = client::Estimator::kAlgorithm2;
  const auto calibrated = Gather<client::Calibrated>(
      command_line, gathering,
      [&](const auto& named, const Part& part) {
        return named.Calibrate(gathering.id, part.data, {.part_id = part.id});
      },
      [&](const auto& named) { return named.Calibrate(gathering.id, {}, end); });
  return Show(command_line, gathering.session, calibrated, CalibratedJson, [&](const client::Calibrated& each) {
    return gathering.drop ? absl::StrFormat("%s has dropped %s\n", each.name, Batches(each.num_batches))
                          : CalibratedText(each, options.to_snapshot);
  });
}

}  // namespace normserve::cli
