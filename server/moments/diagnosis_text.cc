#include "server/moments/diagnosis_text.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace normserve {
namespace {

std::string Percent(double share) {
  return std::abs(share) < 0.1 ? absl::StrFormat("%.2g %%", 100 * share) : absl::StrFormat("%.0f %%", 100 * share);
}

// "channels 3, 17 and 40 more"
std::string Flagged(const LayerDiagnosis& diagnosis, ChannelFlag flag) {
  std::string text;
  int64_t found = 0;
  for (size_t c = 0; c < diagnosis.flags.size(); ++c) {
    if (!diagnosis.flags[c].Has(flag)) continue;
    if (++found <= 3) absl::StrAppend(&text, found == 1 ? "" : ", ", c);
  }
  if (found > 3) absl::StrAppend(&text, " and ", found - 3, " more");
  return absl::StrCat(found == 1 ? "channel " : "channels ", text);
}

// The gap and where it is largest.
std::string GapText(const DiagnosedLayer& layer, const Moments& batch, const LayerDiagnosis& diagnosis) {
  const auto& channels = diagnosis.gap->channels;
  const size_t worst = static_cast<size_t>(
      std::max_element(channels.begin(), channels.end(), [](auto& a, auto& b) { return a.rms < b.rms; }) -
      channels.begin());
  return absl::StrFormat(
      "On this batch of %d values a channel evaluation's output differs from training's by %.3g (root mean square; %s "
      "of "
      "the weight's), most in channel %d: running mean %.3g and variance %.3g, the batch's %.3g and %.3g, so the "
      "output "
      "is %.3g times as wide and lies %+.3g from where training puts it. ",
      batch.count, diagnosis.gap->rms, Percent(diagnosis.RelativeGap()), worst, layer.statistics.running_mean[worst],
      layer.statistics.running_variance[worst], batch.mean[worst], batch.BiasedVariance(worst),
      channels[worst].scale_ratio, channels[worst].offset);
}

std::string NoiseText(const LayerDiagnosis& diagnosis) {
  return absl::StrFormat("Sampling alone would make it about %.3g, and seldom above %.3g. ", diagnosis.noise.rms,
                         diagnosis.noise.limit);
}

std::string AverageText(const DiagnosedLayer& layer, const LayerDiagnosis& diagnosis) {
  const int64_t updates = layer.statistics.num_batches_tracked;
  if (layer.average.kind == AverageKind::kCumulative)
    return absl::StrFormat("a cumulative average of %d batches", updates);
  return absl::StrFormat("momentum %g after %d batches, which averages as much as %.3g batches of equal weight would",
                         layer.average.momentum, updates, diagnosis.effective_batches);
}

std::string ShareText(const LayerDiagnosis& diagnosis) {
  std::string text = "Shares of the gap:";
  for (const CauseShare& cause : diagnosis.causes) {
    absl::StrAppendFormat(&text, " %s %s%s", CauseName(cause.cause), Percent(cause.share / diagnosis.gap->rms),
                          &cause == &diagnosis.causes.back() ? "." : ",");
  }
  return text;
}

constexpr absl::string_view kComplement =
    " Momentum is the weight of the newest batch here, as in PyTorch; Keras, Flax and ONNX write one minus that.";

struct Words {
  std::string explanation, advice;
};

Words CauseWords(const DiagnosedLayer& layer, int64_t num_earlier, const LayerDiagnosis& diagnosis) {
  const int64_t updates = layer.statistics.num_batches_tracked;
  const double momentum = layer.average.momentum;
  switch (*diagnosis.main_cause) {
    case Cause::kInitialisation: {
      std::string advice =
          "Calibrate on a few batches, train on, or average cumulatively or zero-debiased, which start "
          "from the first batch.";
      if (momentum > 0 && momentum < 1) {
        advice = absl::StrFormat("%s With momentum %g it takes %d batches until 1 %% of the start is left.", advice,
                                 momentum, static_cast<int64_t>(std::ceil(std::log(0.01) / std::log1p(-momentum))));
      }
      return {absl::StrFormat("%s of the running statistics is still what they were initialised with: %d batches with "
                              "momentum %g. ",
                              Percent(diagnosis.initial_share), updates, momentum),
              advice};
    }
    case Cause::kBessel:
      return {
          "Running variance is the unbiased one (divided by n - 1), training normalises with the biased one (by n). ",
          "Train with more values a channel, or keep the biased running variance as Keras, Flax and ONNX do."};
    case Cause::kSamplingNoise:
      return {"The batch is a sample, and so are its statistics; running statistics are as good as batches like it. ",
              "Nothing is wrong with the running statistics. More values a channel make training's less noisy."};
    case Cause::kTooFewUpdates: {
      std::string advice = "Calibrate on more batches, or train on.";
      if (updates > kFewBatches && layer.average.kind != AverageKind::kCumulative && momentum > 0.5) {
        advice = absl::StrFormat("Set momentum to %g if that is what was meant.%s", 1 - momentum, kComplement);
      }
      return {absl::StrCat("The running statistics are hardly more than a sample themselves: ",
                           AverageText(layer, diagnosis), ". "),
              advice};
    }
    case Cause::kMomentumLag: {
      const double folded = 1 - InitialShare({.momentum = momentum}, num_earlier);
      std::string explanation = absl::StrFormat(
          "The %d earlier batches agree with this one, the running statistics with neither: they lag behind (%s). ",
          num_earlier, AverageText(layer, diagnosis));
      if (layer.average.kind == AverageKind::kExponential && folded > 0.9) {
        absl::StrAppend(&explanation, "Had those batches been folded in they would weigh ", Percent(folded),
                        ", so the statistics are frozen, or were loaded or set since. ");
        return {explanation, "Let training update the statistics, or calibrate on batches like these."};
      }
      return {explanation, "Calibrate on batches like these, train on, or raise momentum."};
    }
    case Cause::kDataShift:
      return {absl::StrFormat(
                  "The running statistics are those of the %d earlier batches; this batch comes from other data. ",
                  num_earlier),
              "If both kinds of data belong to one model, give each its own session (or batches that mix them); if the "
              "data moved on, calibrate on the new."};
    case Cause::kLagOrShift:
      break;
  }
  return {absl::StrFormat("The running statistics describe other data than this batch (%s): either they lag behind, or "
                          "the batch comes from elsewhere. One state cannot tell which. ",
                          AverageText(layer, diagnosis)),
          "Send the moments of some earlier batches too, to tell lag from shift; calibrate on the data that evaluation "
          "will see."};
}

Words VerdictWords(const DiagnosedLayer& layer, const Moments& batch, int64_t num_earlier,
                   const LayerDiagnosis& diagnosis) {
  switch (diagnosis.verdict) {
    case Verdict::kNonFinite:
      if (diagnosis.gap.has_value()) {
        return {"Evaluation divides by a variance of 0 and epsilon is 0, or its output is beyond double.",
                "Set epsilon above 0, 1e-5 by default."};
      }
      return {absl::StrCat("NaN, infinity or a negative variance in the statistics, parameters or batch of ",
                           Flagged(diagnosis, ChannelFlag::kNonFinite),
                           ": evaluation's output is lost there, while "
                           "training's may look sound. 16-bit overflow in the layer before does this."),
              "Restore a snapshot or calibrate anew, and reject or skip batches that are not finite."};
    case Verdict::kNotTracked:
      return {
          "The layer keeps no running statistics: evaluation normalises with its own batch, as training does, and an "
          "output depends on what else is in the batch.",
          "Keep running statistics (track_running_stats), or calibrate, if outputs must not depend on the batch."};
    case Verdict::kNoEvidence:
      return {"There is no batch to compare the running statistics with.", "Send a batch, or its moments."};
    case Verdict::kBatchTooSmall:
      if (!diagnosis.gap.has_value()) {
        return {"The batch has one value a channel, whose variance is none: training with it is an error.",
                "Send two values a channel or more (drop the last, smaller batch), or evaluate this layer."};
      }
      return {absl::StrCat(GapText(layer, batch, diagnosis), NoiseText(diagnosis),
                           "So few independent values make a variance uncertain by ",
                           Percent(std::sqrt(2 / (diagnosis.independent_values - 1))), ". ", ShareText(diagnosis)),
              "The running statistics are the better ones. Train with larger batches, synchronise batches over workers "
              "(merge their moments), or normalise with the running statistics (mode EVAL) while fine-tuning."};
    case Verdict::kNeverUpdated: {
      std::string explanation =
          absl::StrFormat("The running statistics are exactly the initial ones, and %d batches have been counted. ",
                          layer.statistics.num_batches_tracked);
      if (diagnosis.gap.has_value()) absl::StrAppend(&explanation, GapText(layer, batch, diagnosis));
      std::string advice = "Train, calibrate, or load statistics before evaluating.";
      if (layer.statistics.num_batches_tracked > 0 && layer.average.momentum == 0) {
        advice = absl::StrCat("Momentum 0 ignores every batch; for a plain average set cumulative.", kComplement);
      }
      return {explanation, advice};
    }
    case Verdict::kHealthy:
      return {absl::StrCat(GapText(layer, batch, diagnosis), NoiseText(diagnosis)), ""};
    case Verdict::kTrainEvalGap:
      break;
  }
  Words words = CauseWords(layer, num_earlier, diagnosis);
  words.explanation =
      absl::StrCat(GapText(layer, batch, diagnosis), NoiseText(diagnosis), words.explanation, ShareText(diagnosis));
  return words;
}

}  // namespace

void Explain(const DiagnosedLayer& layer, const Moments& batch, int64_t num_earlier, LayerDiagnosis& diagnosis) {
  Words words = VerdictWords(layer, batch, num_earlier, diagnosis);
  diagnosis.explanation = std::move(words.explanation);
  diagnosis.advice = std::move(words.advice);
  for (ChannelFlag flag : {ChannelFlag::kDead, ChannelFlag::kFrozenAffine, ChannelFlag::kExplodingAbsolute,
                           ChannelFlag::kExplodingRelative}) {
    if (std::none_of(diagnosis.flags.begin(), diagnosis.flags.end(), [flag](auto& flags) { return flags.Has(flag); })) {
      continue;
    }
    absl::StrAppend(&diagnosis.explanation, diagnosis.explanation.ends_with(' ') ? "" : " ", ChannelFlagName(flag),
                    ": ", Flagged(diagnosis, flag), ".");
  }
  while (diagnosis.explanation.ends_with(' ')) diagnosis.explanation.pop_back();
}

}  // namespace normserve
