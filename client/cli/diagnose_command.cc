#include "client/cli/diagnose_command.h"

#include <algorithm>
#include <cstdio>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "client/cli/moments_file.h"
#include "client/cli/named.h"
#include "client/cli/npy.h"

namespace normserve::cli {
namespace {

using client::Client;
using client::Diagnosis;

constexpr size_t kTextWidth = 78;

void Print(const std::string& text) { std::fwrite(text.data(), 1, text.size(), stdout); }

nlohmann::ordered_json ToJson(const Diagnosis& diagnosis) {
  nlohmann::ordered_json json = {{"name", diagnosis.name},
                                 {"uid", diagnosis.uid},
                                 {"generation", diagnosis.generation},
                                 {"verdict", diagnosis.verdict},
                                 {"batch_count", diagnosis.batch_count}};
  for (const auto& [key, value] :
       {std::pair{"gap_rms", diagnosis.gap_rms}, std::pair{"predicted_gap_rms", diagnosis.predicted_gap_rms},
        std::pair{"relative_gap", diagnosis.relative_gap}, std::pair{"sampling_noise", diagnosis.sampling_noise},
        std::pair{"sampling_noise_limit", diagnosis.sampling_noise_limit}}) {
    if (value.has_value()) json[key] = *value;
  }
  json["causes"] = nlohmann::ordered_json::array();
  for (const auto& cause : diagnosis.causes) json["causes"].push_back({{"cause", cause.cause}, {"share", cause.share}});
  json["flagged_channels"] = diagnosis.flagged_channels;
  if (!diagnosis.channel_gap_rms.empty()) json["channel_gap_rms"] = diagnosis.channel_gap_rms;
  json["explanation"] = diagnosis.explanation;
  json["advice"] = diagnosis.advice;
  return json;
}

// In lines of at most kTextWidth, where words allow it.
std::string Wrapped(const std::string& text) {
  std::string wrapped;
  size_t column = 0;
  for (absl::string_view word : absl::StrSplit(text, ' ', absl::SkipEmpty())) {
    if (column > 0 && column + 1 + word.size() > kTextWidth) {
      wrapped += "\n";
      column = 0;
    }
    if (column > 0) wrapped += " ";
    absl::StrAppend(&wrapped, word);
    column += word.size() + (column > 0 ? 1 : 0);
  }
  return wrapped + "\n";
}

std::string GapText(const Diagnosis& diagnosis) {
  return diagnosis.relative_gap.has_value() ? absl::StrFormat("%.3g", *diagnosis.relative_gap) : "-";
}

std::string FlagsText(const Diagnosis& diagnosis) {
  std::string text;
  for (const auto& [flag, count] : diagnosis.flagged_channels) {
    absl::StrAppend(&text, text.empty() ? "" : ", ", count, " ", flag);
  }
  return text;
}

std::string SessionText(const Diagnosis& diagnosis) {
  std::string text = absl::StrFormat("%s   %s   generation %d\n\n%s", diagnosis.name, diagnosis.verdict,
                                     diagnosis.generation, Wrapped(diagnosis.explanation));
  if (!diagnosis.advice.empty()) absl::StrAppend(&text, "\n", Wrapped(diagnosis.advice));
  if (diagnosis.gap_rms.has_value() && !diagnosis.causes.empty()) {
    absl::StrAppendFormat(&text, "\n%-18s %12s\n", "cause", "of the gap");
    for (const auto& cause : diagnosis.causes) absl::StrAppendFormat(&text, "%-18s %12.4g\n", cause.cause, cause.share);
    absl::StrAppendFormat(&text, "%-18s %12.4g   (this batch %.2g, a sound layer %.2g)\n", "together",
                          diagnosis.predicted_gap_rms.value_or(*diagnosis.gap_rms), *diagnosis.gap_rms,
                          diagnosis.sampling_noise.value_or(0));
  }
  if (const std::string flags = FlagsText(diagnosis); !flags.empty())
    absl::StrAppend(&text, "\nchannels: ", flags, "\n");
  return text;
}

// The largest share.
std::string MainCause(const Diagnosis& diagnosis) {
  const auto largest = std::max_element(diagnosis.causes.begin(), diagnosis.causes.end(),
                                        [](const auto& a, const auto& b) { return a.share < b.share; });
  return largest == diagnosis.causes.end() ? "-" : largest->cause;
}

std::string ModelText(const std::vector<Diagnosis>& sessions) {
  std::string text = absl::StrFormat("%-16s %9s  %-16s  %s\n", "verdict", "gap", "main cause", "name");
  for (const Diagnosis& diagnosis : sessions) {
    absl::StrAppendFormat(&text, "%-16s %9s  %-16s  %s\n", diagnosis.verdict, GapText(diagnosis), MainCause(diagnosis),
                          diagnosis.name);
  }
  absl::StrAppend(&text, "\ngap: of evaluation's output beside training's, as a share of the output's size\n");
  if (!sessions.front().advice.empty()) {
    absl::StrAppend(
        &text, "\n",
        Wrapped(absl::StrCat(sessions.front().name, ": ", sessions.front().explanation, " ", sessions.front().advice)));
  }
  return text;
}

}  // namespace

int Diagnose(const CommandLine& command_line, const std::string& session, client::DiagnoseOptions options,
             const std::string& file) {
  client::Tensor batch;
  if (IsMomentsFile(file)) {
    auto data = ReadMomentsFile(file);
    if (!data.ok()) return Fail(command_line, data.status());
    options.moments = std::move(data->moments);
    options.layers = std::move(data->layers);
  } else if (!file.empty()) {
    auto tensor = ReadNpyTensor(file);
    if (!tensor.ok()) return Fail(command_line, tensor.status());
    batch = *std::move(tensor);
    options.batch = batch;
  }
  absl::StatusOr<Client> client = MakeClient(command_line);
  if (!client.ok()) return Fail(command_line, client.status());
  const auto diagnoses =
      CallNamed<Diagnosis>(*client, session, [&](const auto& named) { return named.Diagnose(options); });
  if (!diagnoses.ok()) return Fail(command_line, diagnoses.status());
  if (command_line.json) {
    Print(JsonLine(session, *diagnoses, ToJson));
  } else {
    Print(IsModel(session) ? ModelText(*diagnoses) : SessionText(diagnoses->front()));
  }
  return kOk;
}

}  // namespace normserve::cli
