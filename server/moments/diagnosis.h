// Why a layer puts out something else in evaluation than in training, how much, and what to do.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "kernels/batch_norm.h"
#include "server/moments/channel_flags.h"
#include "server/moments/gap.h"
#include "server/moments/running_average.h"

namespace normserve {

enum class Verdict {
  kHealthy,        // the gap is what sampling makes it, or below kSmallGap
  kTrainEvalGap,   // it is neither, or half of it and more is what is left of the initial statistics: see causes
  kBatchTooSmall,  // one value a channel; or fewer than kNoisyCount (independent ones), whose noise makes the gap
  kNonFinite,      // statistics, parameters, the batch or the gap are not finite
  kNeverUpdated,   // running statistics are exactly the initial ones
  kNotTracked,     // no running statistics: evaluation depends on its batch as training does, there is no gap
  kNoEvidence,     // no batch to compare with
};

enum class Cause {
  kInitialisation,  // what is left of the initial statistics
  kBessel,          // running variance is unbiased, training's biased
  kSamplingNoise,   // a batch is a sample; no fault
  kTooFewUpdates,   // running statistics average so few batches (kFewBatches or less) that they are one themselves
  kMomentumLag,     // data were like this for a while, running statistics are not there yet
  kDataShift,       // running statistics are those of earlier batches, the newest is different
  kLagOrShift,      // one of the two: one state alone cannot tell
};

// Of the weight's root mean square: a gap that nobody would notice.
inline constexpr double kSmallGap = 0.05;
inline constexpr double kFewBatches = 4;

// "TRAIN_EVAL_GAP", "INITIALISATION" and so on.
absl::string_view VerdictName(Verdict verdict);
absl::string_view CauseName(Cause cause);

struct DiagnosedLayer {
  size_t num_features = 0;  // C
  LayerStatistics statistics;
  RunningAverage average;
  bool running_variance_biased = false;
  // Where the running statistics were set to others rather than averaged from the initial ones: the batches folded in
  // since then, of all that num_batches_tracked counts. Nothing of the initial ones is in them, and what they were set
  // to counts as exact.
  std::optional<int64_t> batches_since_set;
  // Samples N in a batch [N, C, *] whose values hang together within a sample, as pixels do: then there may be as few
  // independent values as samples. 0: as the batch's num_samples; where that is 0 too all values count as independent.
  int64_t samples_per_batch = 0;
  // Whether the batch is the newest of those folded in: the running statistics know it better than they will the next.
  bool batch_is_folded = false;
};

struct CauseShare {
  Cause cause;
  double share = 0;  // of predicted_rms, in its unit; may be negative where one cause hides another
};

struct LayerDiagnosis {
  Verdict verdict = Verdict::kNoEvidence;
  // Of the batch, and so the prediction for the next of its kind. Absent where training or evaluation have no output.
  std::optional<LayerGap> gap;
  // The gap to expect on a later batch of the same kind: gap->rms, and where the batch is one of those folded in
  // sqrt(gap->rms^2 + 2 w N^2), w its weight in the running statistics (NewestWeight) and N the noise of one batch, as
  // it was measured or of independent values.
  double predicted_rms = 0;
  SamplingNoise noise;               // what a sound layer would show on such batches
  double independent_values = 0;     // a channel, of the batch: its count, or fewer where they hang together
  double effective_batches = 0;      // that the running statistics average
  bool history_is_mixed = false;     // a quarter or more of the earlier batches are unlike the one before them
  int64_t batches_since_change = 0;  // earlier batches like this one, where those before them are other data
  int64_t reference_count = 0;       // values a channel of the reference, where it was that told lag from shift
  double initial_share = 0;          // of the initial statistics left in them
  std::vector<CauseShare> causes;    // in the order of the swaps; shares add up to predicted_rms
  std::optional<Cause> main_cause;   // the largest share, where there is a gap at all
  std::vector<ChannelFlags> flags;   // [C]
  std::string explanation;           // what is, in plain words with the numbers
  std::string advice;                // what to do; empty if nothing

  // The gap over the weight's root mean square; 0 if absent.
  double RelativeGap() const;
};

// Diagnoses a layer on `batch`, moments of a batch as it is trained with; `history` has those of earlier batches,
// oldest first, without `batch`; `reference` those of data that were seen earlier, pooled; null: none. (What is not
// finite or has less than two values is left out.) Counts may differ: `batch` too may be many batches pooled.
//
// Evaluation's constants are swapped for training's in this order, and what a swap takes off the gap is the share of
// its cause:
//   1. INITIALISATION: (running - s * initial) / (1 - s), s = InitialShare; the batch's own statistics where nothing
//      but the initial ones is left. Left out where a variance would become negative (the statistics were not averaged
//      from the initial ones then) or the gap infinite.
//   2. BESSEL: an unbiased variance times (n - 1) / n, n = batch.count.
//   3. The rest, for the batch's own: SAMPLING_NOISE up to the limit of PredictNoise; else TOO_FEW_UPDATES up to that
//      with EffectiveBatches, where those are at most kFewBatches; beyond, by earlier data: MOMENTUM_LAG if they are
//      as near the newest as the noise of both allows or kSmallGap, DATA_SHIFT if not and the running statistics are
//      nearer to them than half their gap to the newest; else, and without earlier data, LAG_OR_SHIFT.
//
// Earlier data are two earlier batches or more, averaged (means and variances, by count), then the reference. Where the
// newest of them are like `batch` and those before them are not, only those before: MOMENTUM_LAG then also means
// that the running statistics are more than half of the way from them. The
// batches are asked first, although the reference is mostly the larger sample: the statistics are, or would be, their
// average, so that what they say of a lag is what momentum did, whereas a reference may have been observed at any time.
// It is asked where they say LAG_OR_SHIFT, or where their noise alone could make the rest.
//
// With four earlier batches or more the noise is also measured, as half the mean square gap between batches one or two
// apart (the lower quartile, so that batches of two kinds do not pass for noise), and taken where it is the larger: up
// to batch.count / samples_per_batch times the closed form's mean square, or 16 times where that is more, as heavy
// tails (a sparse ReLU's) may make it. Channels whose noises hang together widen the limit: by as much as
// the second largest gap between neighbours is above what is expected there, up to 1.75 times. The noise of what
// earlier batches were averaged to is that of their values, be they more or fewer than the newest's. Verdict and main
// cause go by the gap on the next batch, predicted_rms.
//
// Errors: INVALID_ARGUMENT as CheckLayer.
absl::StatusOr<LayerDiagnosis> DiagnoseLayer(const DiagnosedLayer& layer, const Moments& batch,
                                             absl::Span<const Moments* const> history,
                                             const Moments* reference = nullptr);
absl::StatusOr<LayerDiagnosis> DiagnoseLayer(const DiagnosedLayer& layer, const Moments& batch,
                                             absl::Span<const Moments> history = {},
                                             const Moments* reference = nullptr);

// Indices of `layers`, worst first: what is not finite, then what cannot be trained with, then gaps that are somebody's
// fault, then the rest, each by RelativeGap. Equals keep their order.
std::vector<size_t> RankWorstFirst(absl::Span<const LayerDiagnosis> layers);

}  // namespace normserve
