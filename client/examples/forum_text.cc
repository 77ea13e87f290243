#include "client/examples/forum_text.h"

#include <cmath>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"

namespace normserve::examples {
namespace {

constexpr double kEpsilon = 1e-5;
constexpr double kMomentum = 0.1;

// "5,795.3", "0.5716" or "-3.3e-06": enough digits to see what it is, thousands apart.
std::string Number(double value) {
  if (value != 0 && std::abs(value) < 1e-3) return absl::StrFormat("%.1e", value);
  if (std::abs(value) < 100) return absl::StrFormat("%.4f", value);
  std::string text = absl::StrFormat("%.1f", value);
  for (int at = static_cast<int>(text.find('.')) - 3; at > (value < 0 ? 1 : 0); at -= 3) text.insert(at, ",");
  return text;
}

std::string Row(const std::string& title, const std::vector<double>& values) {
  std::string row = absl::StrFormat("    %-18s", title);
  for (const double value : values) absl::StrAppendFormat(&row, "%12.6f", value);
  return row + "\n";
}

std::string Puzzle(const ForumResult& result) {
  return absl::StrCat(
      "THE PUZZLE: equal statistics, different answers\n\n"
      "    bn1 = BatchNorm2d(3);  bn2 = deepcopy(bn1)\n"
      "    x   = rand(4, 3, 32, 32), seed ",
      result.seed,
      "\n"
      "    computed on: ",
      result.device.empty() ? "(the server names no device)" : result.device,
      "\n\n"
      "  1. Both see x once, in TRAIN mode. Their running statistics:\n\n",
      Row("bn1 running_mean", result.bn1.running_mean), Row("bn2 running_mean", result.bn2.running_mean),
      Row("bn1 running_var", result.bn1.running_var), Row("bn2 running_var", result.bn2.running_var), "\n     ",
      result.StatisticsEqual() ? "Equal, bit for bit." : "NOT EQUAL: this is a fault.",
      "\n\n"
      "  2. bn2 goes to EVAL mode and sees x again. Sums of the outputs:\n\n",
      absl::StrFormat("    bn1(x), TRAIN %15s\n    bn2(x), EVAL  %15s\n\n", Number(result.train_sum),
                      Number(result.eval_sum)));
}

// One channel's share in the EVAL sum: n * (mean - running_mean) / sqrt(running_var + epsilon).
double ChannelSum(const ForumResult& result, size_t channel) {
  return static_cast<double>(result.batch_moments.count) *
         (result.batch_moments.mean[channel] - result.bn2.running_mean[channel]) /
         std::sqrt(result.bn2.running_var[channel] + kEpsilon);
}

std::string Why(const ForumResult& result) {
  const client::Moments& batch = result.batch_moments;
  const double mean = batch.mean[0];
  const double unbiased = batch.UnbiasedVariance(0);
  std::string text = absl::StrCat(
      "WHY: nothing is broken\n\n"
      "  TRAIN normalises x with the mean and variance of x itself, so each\n"
      "  channel comes out with mean 0: the sum is 0 whatever the running\n"
      "  statistics are. It only updates them, one step of momentum 0.1:\n\n",
      absl::StrFormat("    running_mean = %.1f * 0 + %.1f * %.6f = %.6f\n", 1 - kMomentum, kMomentum, mean,
                      (1 - kMomentum) * 0 + kMomentum * mean),
      absl::StrFormat("    running_var  = %.1f * 1 + %.1f * %.6f = %.6f\n\n", 1 - kMomentum, kMomentum, unbiased,
                      (1 - kMomentum) * 1 + kMomentum * unbiased),
      "  (channel 0; they start at 0 and 1; the variance here is the unbiased\n"
      "  one, M2 / (n - 1).)\n\n"
      "  EVAL normalises with those running statistics. After one step they\n"
      "  are still nine tenths of where they started, far from x:\n\n"
      "    sum of a channel = n * (mean - running_mean)\n"
      "                         / sqrt(running_var + epsilon)\n\n");
  double total = 0;
  for (size_t channel = 0; channel < batch.mean.size(); ++channel) {
    const double share = ChannelSum(result, channel);
    total += share;
    const std::string formula =
        absl::StrFormat("%d * (%.4f - %.4f) / sqrt(%.4f)", batch.count, batch.mean[channel],
                        result.bn2.running_mean[channel], result.bn2.running_var[channel] + kEpsilon);
    absl::StrAppendFormat(&text, "    channel %d: %-40s %9s\n", channel, formula, Number(share));
  }
  absl::StrAppendFormat(&text, "    %-51s %9s\n    %-51s %9s\n\n", "together, predicted", Number(total),
                        "bn2(x), measured", Number(result.eval_sum));
  return text;
}

std::string HowItEnds(const ForumResult& result) {
  std::string text =
      "HOW IT ENDS: the running statistics catch up\n\n"
      "  bn1 goes on training on x; now and then it is asked in EVAL mode:\n\n"
      "    updates   running_mean    running_var       EVAL sum\n";
  for (const auto& [count, after] : result.after_updates) {
    absl::StrAppendFormat(&text, "    %7d %14.6f %14.6f %14s\n", count, after.statistics.running_mean[0],
                          after.statistics.running_var[0], Number(after.eval_sum));
  }
  absl::StrAppendFormat(&text, "    %7s %14.6f %14.6f %14s\n\n", "(x)", result.batch_moments.mean[0],
                        result.batch_moments.UnbiasedVariance(0), "0");
  absl::StrAppend(&text,
                  "  (channel 0; the last line is what they run towards.) After k updates\n"
                  "  0.9^k of the start is left. A large gap between TRAIN and EVAL means\n"
                  "  running statistics that have not caught up with the data: too few\n"
                  "  updates, too small a momentum, or other data.");
  return text;
}

// In indented lines of at most 76 columns.
std::string Indented(const std::string& words) {
  std::string text = " ";
  size_t column = 1;
  for (absl::string_view word : absl::StrSplit(words, ' ', absl::SkipEmpty())) {
    if (column + 1 + word.size() > 76) {
      text += "\n ";
      column = 1;
    }
    absl::StrAppend(&text, " ", word);
    column += 1 + word.size();
  }
  return text + "\n\n";
}

std::string WhatDiagnoseSays(const ForumResult& result) {
  const client::Diagnosis& diagnosis = result.diagnosis;
  std::string text = absl::StrCat("\n\nWHAT DIAGNOSE SAYS of bn2: ", diagnosis.verdict, "\n\n",
                                  Indented(diagnosis.explanation), Indented(diagnosis.advice));
  absl::StrAppend(&text, "  Ask for any session or model: normctl diagnose NAME");
  return text;
}

// Also tells 0 from -0.
bool SameBits(const std::vector<double>& a, const std::vector<double>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(double)) == 0;
}

}  // namespace

bool ForumResult::StatisticsEqual() const {
  return SameBits(bn1.running_mean, bn2.running_mean) && SameBits(bn1.running_var, bn2.running_var) &&
         bn1.num_batches_tracked == bn2.num_batches_tracked;
}

std::string ForumText(const ForumResult& result) {
  return Puzzle(result) + Why(result) + HowItEnds(result) + WhatDiagnoseSays(result);
}

}  // namespace normserve::examples
