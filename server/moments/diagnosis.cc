#include "server/moments/diagnosis.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <tuple>
#include <utility>

#include "server/moments/diagnosis_text.h"

namespace normserve {
namespace {

constexpr std::array<absl::string_view, 7> kVerdicts = {
    "HEALTHY", "TRAIN_EVAL_GAP", "BATCH_TOO_SMALL", "NON_FINITE", "NEVER_UPDATED", "NOT_TRACKED", "NO_EVIDENCE"};
constexpr std::array<absl::string_view, 7> kCauses = {
    "INITIALISATION", "BESSEL", "SAMPLING_NOISE", "TOO_FEW_UPDATES", "MOMENTUM_LAG", "DATA_SHIFT", "LAG_OR_SHIFT"};

// How many times larger than nominal noise may be measured where the number of samples is not known.
constexpr double kMaxInflation = 16;
constexpr size_t kMeasuringBatches = 4;
// As many values has what is no sample.
constexpr double kExact = std::numeric_limits<double>::infinity();
// And by how much the limit may be widened.
constexpr double kMaxWidening = 1.75;

double InitialMean(const LayerStatistics& layer, size_t c) {
  return layer.initial_mean.empty() ? 0 : layer.initial_mean[c];
}
double InitialVariance(const LayerStatistics& layer, size_t c) {
  return layer.initial_variance.empty() ? 1 : layer.initial_variance[c];
}

bool StillInitial(const LayerStatistics& layer, size_t num_features) {
  for (size_t c = 0; c < num_features; ++c) {
    if (layer.running_mean[c] != InitialMean(layer, c) || layer.running_variance[c] != InitialVariance(layer, c)) {
      return false;
    }
  }
  return true;
}

bool Sound(const Moments& batch) {
  const auto finite = [](double value) { return std::isfinite(value); };
  return batch.count >= 2 && std::all_of(batch.mean.begin(), batch.mean.end(), finite) &&
         std::all_of(batch.m2.begin(), batch.m2.end(), [](double m2) { return std::isfinite(m2) && m2 >= 0; });
}

NormalizationStatistics BiasedStatistics(const Moments& batch) {
  NormalizationStatistics statistics{.mean = batch.mean};
  for (size_t c = 0; c < batch.mean.size(); ++c) statistics.variance.push_back(batch.BiasedVariance(c));
  return statistics;
}

// Means and variances averaged by count, as running statistics would; the count is that of all.
Moments Average(absl::Span<const Moments* const> batches) {
  const size_t num_features = batches[0]->mean.size();
  Moments average{.mean = std::vector<double>(num_features), .m2 = std::vector<double>(num_features)};
  double total = 0;
  for (const Moments* batch : batches) total += static_cast<double>(batch->count);
  for (const Moments* batch : batches) {
    const double weight = static_cast<double>(batch->count) / total;
    average.count += batch->count;
    for (size_t c = 0; c < average.mean.size(); ++c) {
      average.mean[c] += weight * batch->mean[c];
      average.m2[c] += batch->m2[c];
    }
  }
  return average;
}

// One diagnosis at work.
class Examination {
 public:
  Examination(const DiagnosedLayer& layer, const Moments& batch, absl::Span<const Moments* const> history,
              const Moments* reference)
      : layer_(layer), statistics_(layer.statistics), batch_(batch) {
    for (const Moments* earlier : history) {
      if (Sound(*earlier)) earlier_.push_back(earlier);
    }
    if (reference != nullptr && Sound(*reference)) reference_ = reference;
  }

  LayerDiagnosis Run() {
    found_.flags = FlagChannels(statistics_, batch_, layer_.num_features);
    found_.verdict = Judge();
    Explain(layer_, batch_, static_cast<int64_t>(earlier_.size()), found_);
    return std::move(found_);
  }

 private:
  LayerGap GapOf(const NormalizationStatistics& running, const Moments& batch) const {
    return PredictGap(running, batch, statistics_.weight, statistics_.epsilon);
  }
  // Between the batch and `count` values of the same kind, of which as large a share is independent.
  SamplingNoise NoiseBeside(double count) const {
    const double num_batches = count / static_cast<double>(batch_.count);
    return PredictNoise(batch_, statistics_.weight, statistics_.epsilon, found_.independent_values, num_batches);
  }
  double LimitBeside(double count) const { return NoiseBeside(count).limit; }
  // Between two batches; `independent` is the share of their values.
  SamplingNoise NoiseBetween(const Moments& one, const Moments& other, double independent) const {
    const auto count = static_cast<double>(other.count);
    return PredictNoise(batch_, statistics_.weight, statistics_.epsilon, std::max(2.0, independent * count),
                        static_cast<double>(one.count) / count);
  }
  // What a gap of `rms` on this batch will be on the next.
  double Next(double rms) const { return std::sqrt(rms * rms + unseen_square_); }
  bool Small(double rms) const { return rms <= kSmallGap * found_.gap->unit; }

  Verdict Judge();
  void MeasureNoise();
  void WidenLimit();
  bool MixedHistory() const;
  size_t BatchesSinceChange() const;
  bool IsLikeNewest(const Moments& earlier) const;
  void SwapConstants();
  double AveragedValues() const;
  Cause CauseOfRest(const NormalizationStatistics& running, double rest);
  Cause CauseBy(const Moments& earlier, const NormalizationStatistics& running) const;

  const DiagnosedLayer& layer_;
  const LayerStatistics& statistics_;
  const Moments& batch_;
  std::vector<const Moments*> earlier_;
  const Moments* reference_ = nullptr;
  bool still_initial_ = false;
  bool few_values_ = false;   // too few for a variance
  double unseen_square_ = 0;  // by which the next batch's mean square gap is expected to be larger
  LayerDiagnosis found_;
};

Verdict Examination::Judge() {
  for (const ChannelFlags& flags : found_.flags) {
    if (flags.Has(ChannelFlag::kNonFinite)) return Verdict::kNonFinite;
  }
  if (statistics_.running_mean.empty()) return Verdict::kNotTracked;
  still_initial_ = StillInitial(statistics_, layer_.num_features);
  const auto& since_set = layer_.batches_since_set;
  const bool was_set = !still_initial_ && (since_set.has_value() || statistics_.num_batches_tracked <= 0);
  found_.initial_share = still_initial_ ? 1
                         : was_set      ? 0
                                        : InitialShare(layer_.average, statistics_.num_batches_tracked);
  found_.effective_batches = since_set.has_value()
                                 ? EffectiveBatchesSinceSet(layer_.average, *since_set, statistics_.num_batches_tracked)
                                 : EffectiveBatches(layer_.average, statistics_.num_batches_tracked);
  if (batch_.count == 0) return still_initial_ ? Verdict::kNeverUpdated : Verdict::kNoEvidence;
  if (batch_.count == 1) return Verdict::kBatchTooSmall;

  found_.gap = GapOf({.mean = {statistics_.running_mean.begin(), statistics_.running_mean.end()},
                      .variance = {statistics_.running_variance.begin(), statistics_.running_variance.end()}},
                     batch_);
  if (!std::isfinite(found_.gap->rms)) return Verdict::kNonFinite;
  MeasureNoise();
  SwapConstants();
  if (still_initial_) return Verdict::kNeverUpdated;
  if (Small(found_.predicted_rms)) return Verdict::kHealthy;
  // What is left of the start is known, whatever the noise of batches.
  const bool is_start =
      found_.causes[0].cause == Cause::kInitialisation && found_.causes[0].share > found_.gap->rms / 2;
  if (is_start || found_.predicted_rms > found_.noise.limit) return Verdict::kTrainEvalGap;
  return few_values_ ? Verdict::kBatchTooSmall : Verdict::kHealthy;
}

// Sets how many values are independent, and the noise that the gap is judged by.
void Examination::MeasureNoise() {
  const auto count = static_cast<double>(batch_.count);
  const int64_t given = layer_.samples_per_batch > 0 ? layer_.samples_per_batch : batch_.num_samples;
  const auto samples = static_cast<double>(std::clamp<int64_t>(given, 0, batch_.count));
  found_.independent_values = count;
  // The limit allows for the worst, one independent value a sample, until batches show what it is; what is predicted
  // does not.
  double inflation = samples > 0 ? count / samples : 1, expected_inflation = 1;
  if (earlier_.size() >= kMeasuringBatches) {
    std::vector<const Moments*> batches = earlier_;
    batches.push_back(&batch_);
    std::vector<double> squares;
    for (size_t apart : {1, 2}) {
      for (size_t i = apart; i < batches.size(); ++i) {
        const double rms = GapOf(BiasedStatistics(*batches[i - apart]), *batches[i]).rms;
        // Two batches differ by the noise of both.
        const double nominal = NoiseBetween(*batches[i - apart], *batches[i], 1).rms;
        squares.push_back(nominal > 0 ? rms * rms / (nominal * nominal) : 1);
      }
    }
    std::sort(squares.begin(), squares.end());
    const double measured = squares[squares.size() / 4];
    // Values that hang together make it larger, and so do heavy tails.
    inflation = expected_inflation = std::clamp(measured, 1.0, std::max(inflation, kMaxInflation));
  }
  found_.independent_values = std::max(2.0, count / inflation);
  // Measured from so few batches, less than twice as much is chance.
  few_values_ =
      batch_.count < kNoisyCount || (inflation >= 2 && found_.independent_values < static_cast<double>(kNoisyCount));
  const bool few = found_.effective_batches <= kFewBatches;
  found_.history_is_mixed = MixedHistory();
  found_.noise = NoiseBeside(few ? kExact : AveragedValues());
  WidenLimit();
  if (layer_.batch_is_folded) {
    const double noise =
        PredictNoise(batch_, statistics_.weight, statistics_.epsilon, std::max(2.0, count / expected_inflation), kExact)
            .rms;
    unseen_square_ = 2 * NewestWeight(layer_.average, statistics_.num_batches_tracked) * noise * noise;
  }
  found_.predicted_rms = Next(found_.gap->rms);
}

// Channels whose noises rise and fall together make it vary more than the limit allows, which takes them for
// independent. The second largest gap between neighbours shows by how much: the largest may be where the data have
// changed.
void Examination::WidenLimit() {
  if (earlier_.size() < kMeasuringBatches) return;
  const double independent = found_.independent_values / static_cast<double>(batch_.count);
  std::vector<double> shares;  // of the noise that is expected between the two
  for (size_t i = 1; i < earlier_.size(); ++i) {
    const double expected = NoiseBetween(*earlier_[i - 1], *earlier_[i], independent).rms;
    const double gap = GapOf(BiasedStatistics(*earlier_[i - 1]), *earlier_[i]).rms;
    shares.push_back(expected > 0 ? gap / expected : 1);
  }
  std::nth_element(shares.begin(), shares.begin() + 1, shares.end(), std::greater<>());
  found_.noise.limit *= std::clamp(shares[1], 1.0, kMaxWidening);
}

// Of as many values would the running statistics' noise be: the effective batches', as large as those that were folded
// in, or as the one at hand where none is known.
double Examination::AveragedValues() const {
  auto per_batch = static_cast<double>(batch_.count);
  if (!earlier_.empty()) {
    per_batch = 0;
    for (const Moments* earlier : earlier_) per_batch += static_cast<double>(earlier->count);
    per_batch /= static_cast<double>(earlier_.size());
  }
  return found_.effective_batches * per_batch;
}

bool Examination::MixedHistory() const {
  const double independent = found_.independent_values / static_cast<double>(batch_.count);
  size_t unlike = 0;
  for (size_t i = 1; i < earlier_.size(); ++i) {
    const double rms = GapOf(BiasedStatistics(*earlier_[i - 1]), *earlier_[i]).rms;
    unlike += rms > NoiseBetween(*earlier_[i - 1], *earlier_[i], independent).limit && !Small(rms);
  }
  return earlier_.size() > 1 && 4 * unlike >= earlier_.size() - 1;
}

// Fills in the causes.
void Examination::SwapConstants() {
  NormalizationStatistics running{
      .mean = {statistics_.running_mean.begin(), statistics_.running_mean.end()},
      .variance = {statistics_.running_variance.begin(), statistics_.running_variance.end()}};
  const double before = found_.gap->rms, share = found_.initial_share;
  NormalizationStatistics debiased = running;
  bool fits = true;
  for (size_t c = 0; c < layer_.num_features; ++c) {
    if (1 - share < 1e-12) {
      debiased.mean[c] = batch_.mean[c];
      debiased.variance[c] = layer_.running_variance_biased ? batch_.BiasedVariance(c) : batch_.UnbiasedVariance(c);
    } else {
      debiased.mean[c] = (running.mean[c] - share * InitialMean(statistics_, c)) / (1 - share);
      debiased.variance[c] = (running.variance[c] - share * InitialVariance(statistics_, c)) / (1 - share);
      // Of a constant channel rounding leaves a little less than nothing.
      fits = fits && debiased.variance[c] >= -1e-6 * InitialVariance(statistics_, c);
    }
  }
  double debiased_gap = GapOf(debiased, batch_).rms;
  if (fits && std::isfinite(debiased_gap)) {
    running = std::move(debiased);
  } else {
    found_.initial_share = 0;
    debiased_gap = before;
  }
  if (!layer_.running_variance_biased) {
    const auto n = static_cast<double>(batch_.count);
    for (double& variance : running.variance) variance *= (n - 1) / n;
  }
  const double rest = GapOf(running, batch_).rms;
  found_.causes = {{Cause::kInitialisation, before - debiased_gap},
                   {Cause::kBessel, debiased_gap - rest},
                   {CauseOfRest(running, Next(rest)), rest}};
  // What only the next batch will show is of the last.
  found_.causes.back().share += found_.predicted_rms - before;
  const auto largest = std::max_element(found_.causes.begin(), found_.causes.end(),
                                        [](const CauseShare& a, const CauseShare& b) { return a.share < b.share; });
  if (found_.predicted_rms > 0) found_.main_cause = largest->cause;
}

Cause Examination::CauseOfRest(const NormalizationStatistics& running, double rest) {
  if (rest <= found_.noise.limit) return Cause::kSamplingNoise;
  // The noise allows for the batches that were averaged, unless they are too few to be good for evaluation.
  if (rest <= LimitBeside(AveragedValues())) return Cause::kTooFewUpdates;
  Cause cause = Cause::kLagOrShift;
  bool is_noise = false;
  if (earlier_.size() >= 2) {
    const size_t since_change = BatchesSinceChange();
    found_.batches_since_change = static_cast<int64_t>(since_change);
    const Moments average = Average(absl::MakeConstSpan(earlier_).first(earlier_.size() - since_change));
    cause = CauseBy(average, running);
    const bool is_between = GapOf(running, average).rms < GapOf(BiasedStatistics(average), batch_).rms;
    // More than half of the way, to data that stay.
    if (since_change > 0 && cause == Cause::kLagOrShift && is_between) cause = Cause::kMomentumLag;
    is_noise = rest <= LimitBeside(static_cast<double>(average.count));
  }
  if (reference_ == nullptr || (cause != Cause::kLagOrShift && !is_noise)) return cause;
  const Cause by_reference = CauseBy(*reference_, running);
  if (by_reference == Cause::kLagOrShift) return cause;
  found_.reference_count = reference_->count;
  return by_reference;
}

// How many of the earlier batches are like the one at hand while those before them are not: the data changed then. 0:
// they did not, or all the time.
size_t Examination::BatchesSinceChange() const {
  const double independent = found_.independent_values / static_cast<double>(batch_.count);
  size_t alike = 0;
  for (; alike < earlier_.size(); ++alike) {
    const Moments& earlier = *earlier_[earlier_.size() - 1 - alike];
    const double rms = GapOf(BiasedStatistics(earlier), batch_).rms;
    if (rms > NoiseBetween(earlier, batch_, independent).limit && !Small(rms)) break;
  }
  if (found_.history_is_mixed || alike == earlier_.size()) return 0;
  return IsLikeNewest(Average(absl::MakeConstSpan(earlier_).first(earlier_.size() - alike))) ? 0 : alike;
}

bool Examination::IsLikeNewest(const Moments& earlier) const {
  const double rms = GapOf(BiasedStatistics(earlier), batch_).rms;
  return Small(rms) || rms <= LimitBeside(static_cast<double>(earlier.count));
}

Cause Examination::CauseBy(const Moments& earlier, const NormalizationStatistics& running) const {
  if (IsLikeNewest(earlier)) return Cause::kMomentumLag;
  const double to_newest = GapOf(BiasedStatistics(earlier), batch_).rms;
  return GapOf(running, earlier).rms < to_newest / 2 ? Cause::kDataShift : Cause::kLagOrShift;
}

}  // namespace

absl::string_view VerdictName(Verdict verdict) { return kVerdicts[static_cast<size_t>(verdict)]; }
absl::string_view CauseName(Cause cause) { return kCauses[static_cast<size_t>(cause)]; }

double LayerDiagnosis::RelativeGap() const { return gap.has_value() && gap->unit > 0 ? gap->rms / gap->unit : 0; }

absl::StatusOr<LayerDiagnosis> DiagnoseLayer(const DiagnosedLayer& layer, const Moments& batch,
                                             absl::Span<const Moments* const> history, const Moments* reference) {
  if (absl::Status status = CheckLayer(layer.statistics, batch, layer.num_features); !status.ok()) return status;
  for (const Moments* earlier : history) {
    if (absl::Status status = CheckLayer({}, *earlier, layer.num_features); !status.ok()) return status;
  }
  if (reference != nullptr) {
    if (absl::Status status = CheckLayer({}, *reference, layer.num_features); !status.ok()) return status;
  }
  return Examination(layer, batch, history, reference).Run();
}

absl::StatusOr<LayerDiagnosis> DiagnoseLayer(const DiagnosedLayer& layer, const Moments& batch,
                                             absl::Span<const Moments> history, const Moments* reference) {
  std::vector<const Moments*> earlier;
  for (const Moments& moments : history) earlier.push_back(&moments);
  return DiagnoseLayer(layer, batch, earlier, reference);
}

std::vector<size_t> RankWorstFirst(absl::Span<const LayerDiagnosis> layers) {
  const auto order = [&layers](size_t i) {
    const LayerDiagnosis& layer = layers[i];
    const bool at_fault = layer.verdict != Verdict::kHealthy && layer.verdict != Verdict::kNotTracked &&
                          layer.verdict != Verdict::kNoEvidence;
    return std::tuple(layer.verdict != Verdict::kNonFinite,
                      layer.verdict != Verdict::kBatchTooSmall || layer.gap.has_value(), !at_fault,
                      -layer.RelativeGap(), i);
  };
  std::vector<size_t> ranked(layers.size());
  std::iota(ranked.begin(), ranked.end(), size_t{0});
  std::sort(ranked.begin(), ranked.end(), [&order](size_t a, size_t b) { return order(a) < order(b); });
  return ranked;
}

}  // namespace normserve
