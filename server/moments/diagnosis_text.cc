#include "server/moments/diagnosis_text.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace normserve {
namespace {

struct Words {
  std::string explanation, advice;
};

constexpr absl::string_view kComplement =
    " Momentum is the weight of the newest batch here, as in PyTorch; Keras, Flax and ONNX write one minus that.";

std::string Percent(double share) {
  return std::abs(share) < 0.1 ? absl::StrFormat("%.2g %%", 100 * share) : absl::StrFormat("%.0f %%", 100 * share);
}

std::string Batches(int64_t count, absl::string_view kind = "") {
  return absl::StrCat(count, " ", kind, count == 1 ? "batch" : "batches");
}

// "channels 3, 17, 18 and 40 more"
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

// The gap, where it is largest, and what sampling would make of it.
std::string GapText(const DiagnosedLayer& layer, const Moments& batch, const LayerDiagnosis& diagnosis) {
  const auto& channels = diagnosis.gap->channels;
  const auto smaller = [](const ChannelGap& a, const ChannelGap& b) { return a.rms < b.rms; };
  const auto worst =
      static_cast<size_t>(std::max_element(channels.begin(), channels.end(), smaller) - channels.begin());
  std::string text =
      absl::StrFormat("On this batch of %d values a channel, evaluation's output differs from training's by %.3g ",
                      batch.count, diagnosis.gap->rms);
  absl::StrAppendFormat(
      &text, "(root mean square; %s of the weight's), most in channel %d: ", Percent(diagnosis.RelativeGap()), worst);
  absl::StrAppendFormat(&text, "running mean %.3g and variance %.3g, the batch's %.3g and %.3g, ",
                        layer.statistics.running_mean[worst], layer.statistics.running_variance[worst],
                        batch.mean[worst], batch.BiasedVariance(worst));
  absl::StrAppendFormat(&text, "so its output is %.3g times as wide", channels[worst].scale_ratio);
  if (channels[worst].offset != 0) {
    absl::StrAppendFormat(&text, " and lies %+.3g from where training puts it", channels[worst].offset);
  }
  if (diagnosis.predicted_rms > 1.05 * diagnosis.gap->rms) {
    absl::StrAppendFormat(&text,
                          ". The batch is part of the running statistics; on the next of its kind it is about %.3g",
                          diagnosis.predicted_rms);
  }
  // What is left of the start is known; sampling, which could make as much, is no news then.
  const bool is_known = diagnosis.verdict == Verdict::kTrainEvalGap && diagnosis.predicted_rms <= diagnosis.noise.limit;
  if (is_known) return text + ". ";
  absl::StrAppendFormat(&text, ". Sampling alone would make the gap about %.3g, and seldom above %.3g. ",
                        diagnosis.noise.rms, diagnosis.noise.limit);
  return text;
}

// What the running statistics are an average of.
std::string AverageText(const DiagnosedLayer& layer, const LayerDiagnosis& diagnosis) {
  const int64_t updates = layer.statistics.num_batches_tracked;
  if (updates == 0 || layer.batches_since_set == 0) return "set, not averaged";
  if (layer.batches_since_set.has_value()) {
    const std::string since = absl::StrCat("set to others before the newest ", Batches(*layer.batches_since_set));
    if (layer.average.kind == AverageKind::kCumulative) return absl::StrCat(since, ", averaged with all before");
    return absl::StrFormat("%s, momentum %g", since, layer.average.momentum);
  }
  if (layer.average.kind == AverageKind::kCumulative) return absl::StrCat("the average of ", Batches(updates));
  return absl::StrFormat("momentum %g after %s, which averages as much as %.3g of equal weight", layer.average.momentum,
                         Batches(updates), diagnosis.effective_batches);
}

// Those that a reader would see in whole per cent.
std::string ShareText(const LayerDiagnosis& diagnosis) {
  std::string text;
  for (const CauseShare& cause : diagnosis.causes) {
    const double percent = std::round(100 * cause.share / diagnosis.predicted_rms);
    if (percent == 0) continue;
    absl::StrAppendFormat(&text, "%s %s %.0f %%", text.empty() ? "Shares of the gap:" : ",", CauseName(cause.cause),
                          percent);
  }
  return absl::StrCat(text, ". ");
}

Words InitialisationWords(const DiagnosedLayer& layer, const LayerDiagnosis& diagnosis) {
  const double momentum = layer.average.momentum;
  Words words{
      absl::StrFormat("%s of the running statistics is still what they began as: %s with momentum %g. ",
                      Percent(diagnosis.initial_share), Batches(layer.statistics.num_batches_tracked), momentum),
      "Calibrate on a few batches, train on, or average cumulatively or zero-debiased, which begin with the first "
      "batch."};
  if (momentum > 0 && momentum < 1) {
    const auto needed = static_cast<int64_t>(std::ceil(std::log(0.01) / std::log1p(-momentum)));
    absl::StrAppendFormat(&words.advice, " With momentum %g it takes %s until 1 %% of the start is left.", momentum,
                          Batches(needed));
  }
  return words;
}

Words FewUpdatesWords(const DiagnosedLayer& layer, const LayerDiagnosis& diagnosis) {
  Words words{absl::StrCat("The running statistics are hardly more than a sample themselves: ",
                           AverageText(layer, diagnosis), ". "),
              "Calibrate on more batches, or train on."};
  const double momentum = layer.average.momentum;
  if (layer.statistics.num_batches_tracked > kFewBatches && layer.average.kind != AverageKind::kCumulative &&
      momentum > 0.5) {
    words.advice = absl::StrFormat("Set momentum to %g if that is what was meant.%s", 1 - momentum, kComplement);
  }
  return words;
}

Words LagWords(const DiagnosedLayer& layer, int64_t num_earlier, const LayerDiagnosis& diagnosis) {
  if (diagnosis.reference_count > 0) {
    return {
        absl::StrFormat("What was observed before the last reset, %d values a channel, agrees with what is observed "
                        "now, the running statistics with neither (%s). ",
                        diagnosis.reference_count, AverageText(layer, diagnosis)),
        "Calibrate on data like these, or train on them."};
  }
  if (diagnosis.batches_since_change > 0) {
    return {absl::StrFormat("The data changed %s ago, and the running statistics (%s) have come more than half of the "
                            "way. ",
                            Batches(diagnosis.batches_since_change + 1), AverageText(layer, diagnosis)),
            "Train on, calibrate on batches like these, or raise momentum."};
  }
  const double folded = 1 - InitialShare(layer.average, num_earlier);
  Words words{absl::StrFormat("The %s agree with this one, the running statistics with neither (%s). ",
                              Batches(num_earlier, "earlier "), AverageText(layer, diagnosis)),
              "Calibrate on batches like these, train on, or raise momentum."};
  if (layer.average.kind == AverageKind::kExponential && folded > 0.9) {
    absl::StrAppend(&words.explanation, "Had those batches been folded in they would weigh ", Percent(folded),
                    ", so the statistics are frozen, or were loaded or set since. ");
    words.advice = "Let training update the statistics, or calibrate on batches like these.";
  }
  return words;
}

Words ShiftWords(int64_t num_earlier, const LayerDiagnosis& diagnosis) {
  if (diagnosis.reference_count > 0) {
    return {absl::StrFormat("The running statistics fit what was observed before the last reset, %d values a channel, "
                            "and not what is observed now: the data have changed. ",
                            diagnosis.reference_count),
            "If the data moved on, calibrate on the new; if both kinds stay, give each its own session."};
  }
  const std::string earlier = Batches(num_earlier, "earlier ");
  if (diagnosis.history_is_mixed) {
    return {absl::StrCat("The running statistics are the average of the ", earlier,
                         ", which are of several kinds: it fits none of them. "),
            "Give each kind of data its own session, or mix the kinds within every batch."};
  }
  if (diagnosis.batches_since_change > 0) {
    return {
        absl::StrCat("The data changed ", Batches(diagnosis.batches_since_change + 1),
                     " ago: the running statistics are still nearer to those of the ",
                     Batches(num_earlier - diagnosis.batches_since_change, "earlier "), " before. "),
        "If the data moved on, calibrate on the new, or train on; if both kinds stay, give each its own session, or "
        "mix them within every batch."};
  }
  return {
      absl::StrCat("The running statistics are those of the ", earlier, "; this batch comes from other data. "),
      "If the data moved on, calibrate on the new; if both kinds stay, give each its own session, or mix them within "
      "every batch."};
}

Words CauseWords(const DiagnosedLayer& layer, int64_t num_earlier, const LayerDiagnosis& diagnosis) {
  switch (*diagnosis.main_cause) {
    case Cause::kInitialisation:
      return InitialisationWords(layer, diagnosis);
    case Cause::kBessel:
      return {
          "Running variance is the unbiased one (divided by n - 1), training normalises with the biased one (by n). ",
          "Train with more values a channel, or keep the biased running variance as Keras, Flax and ONNX do."};
    case Cause::kSamplingNoise:
      return {"The batch is a sample, and so are its statistics. ", "Train with more values a channel."};
    case Cause::kTooFewUpdates:
      return FewUpdatesWords(layer, diagnosis);
    case Cause::kMomentumLag:
      return LagWords(layer, num_earlier, diagnosis);
    case Cause::kDataShift:
      return ShiftWords(num_earlier, diagnosis);
    case Cause::kLagOrShift:
      break;
  }
  return {absl::StrFormat("The running statistics describe other data than this batch (%s): either they lag behind, or "
                          "the batch comes from elsewhere. What was seen before cannot tell which. ",
                          AverageText(layer, diagnosis)),
          "Fold in a few batches more, or observe data as they were in training, reset, and observe these again: that "
          "tells lag from shift. Calibrate on the data that evaluation will see."};
}

Words NonFiniteWords(const LayerDiagnosis& diagnosis) {
  if (diagnosis.gap.has_value()) {
    return {"Evaluation divides by a variance of 0 and epsilon is 0, or its output is beyond double.",
            "Set epsilon above 0, 1e-5 by default."};
  }
  return {
      absl::StrCat("NaN, infinity or a negative variance in the statistics, parameters or batch of ",
                   Flagged(diagnosis, ChannelFlag::kNonFinite),
                   ": evaluation's output is lost there, while training's may look sound. An overflow in 16 bits in "
                   "the layer before does this."),
      "Restore a snapshot or calibrate anew, and reject or skip batches that are not finite."};
}

Words SmallBatchWords(const DiagnosedLayer& layer, const Moments& batch, int64_t num_earlier,
                      const LayerDiagnosis& diagnosis) {
  if (!diagnosis.gap.has_value()) {
    return {"The batch has one value a channel, whose variance is none: training with it is an error.",
            "Send two values a channel or more (drop the last, smaller batch), or evaluate this layer."};
  }
  return {absl::StrCat(
              GapText(layer, batch, diagnosis),
              absl::StrFormat("%.3g independent values make a variance uncertain by %s. ", diagnosis.independent_values,
                              Percent(std::sqrt(2 / (diagnosis.independent_values - 1)))),
              CauseWords(layer, num_earlier, diagnosis).explanation, ShareText(diagnosis)),
          "The running statistics are the better ones. Train with larger batches, synchronise batches over workers "
          "(merge their moments), or fine-tune in mode EVAL."};
}

Words NeverUpdatedWords(const DiagnosedLayer& layer, const Moments& batch, const LayerDiagnosis& diagnosis) {
  const int64_t updates = layer.statistics.num_batches_tracked;
  Words words{absl::StrFormat("The running statistics are exactly the initial ones, and %s been counted. ",
                              absl::StrCat(Batches(updates), updates == 1 ? " has" : " have")),
              "Train, calibrate, or load statistics before evaluating."};
  if (diagnosis.gap.has_value()) absl::StrAppend(&words.explanation, GapText(layer, batch, diagnosis));
  if (updates > 0 && layer.average.momentum == 0) {
    words.advice = absl::StrCat("Momentum 0 ignores every batch; for a plain average set cumulative.", kComplement);
  }
  return words;
}

// A gap that anybody would mind may be sampling where few values are independent, and may be none.
std::string HealthyText(const Moments& batch, int64_t num_earlier, const LayerDiagnosis& diagnosis) {
  const bool is_supposed = num_earlier == 0 && diagnosis.independent_values < static_cast<double>(batch.count);
  if (diagnosis.RelativeGap() <= kSmallGap || !is_supposed) return "Nothing is wrong.";
  return absl::StrFormat(
      "Nothing shows to be wrong, if as few as %.3g of the values are independent, one a sample; "
      "batches that were seen before would tell.",
      diagnosis.independent_values);
}

Words VerdictWords(const DiagnosedLayer& layer, const Moments& batch, int64_t num_earlier,
                   const LayerDiagnosis& diagnosis) {
  switch (diagnosis.verdict) {
    case Verdict::kNonFinite:
      return NonFiniteWords(diagnosis);
    case Verdict::kNotTracked:
      return {
          "The layer keeps no running statistics: evaluation normalises with its own batch, as training does, and an "
          "output depends on what else is in the batch.",
          "Keep running statistics (track_running_stats), or calibrate, if outputs must not depend on the batch."};
    case Verdict::kNoEvidence:
      return {"There is no batch to compare the running statistics with.", "Send a batch, or its moments."};
    case Verdict::kBatchTooSmall:
      return SmallBatchWords(layer, batch, num_earlier, diagnosis);
    case Verdict::kNeverUpdated:
      return NeverUpdatedWords(layer, batch, diagnosis);
    case Verdict::kHealthy:
      return {absl::StrCat(GapText(layer, batch, diagnosis), HealthyText(batch, num_earlier, diagnosis)), ""};
    case Verdict::kTrainEvalGap:
      break;
  }
  Words words = CauseWords(layer, num_earlier, diagnosis);
  words.explanation = absl::StrCat(GapText(layer, batch, diagnosis), words.explanation, ShareText(diagnosis));
  return words;
}

}  // namespace

void Explain(const DiagnosedLayer& layer, const Moments& batch, int64_t num_earlier, LayerDiagnosis& diagnosis) {
  Words words = VerdictWords(layer, batch, num_earlier, diagnosis);
  while (words.explanation.ends_with(' ')) words.explanation.pop_back();
  for (ChannelFlag flag : {ChannelFlag::kDead, ChannelFlag::kFrozenAffine, ChannelFlag::kExplodingAbsolute,
                           ChannelFlag::kExplodingRelative}) {
    const auto has = [flag](const ChannelFlags& flags) { return flags.Has(flag); };
    if (std::any_of(diagnosis.flags.begin(), diagnosis.flags.end(), has)) {
      absl::StrAppend(&words.explanation, " ", ChannelFlagName(flag), ": ", Flagged(diagnosis, flag), ".");
    }
  }
  diagnosis.explanation = std::move(words.explanation);
  diagnosis.advice = std::move(words.advice);
}

}  // namespace normserve
