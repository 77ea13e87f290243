#include "server/moments/gap.h"

#include <cmath>

namespace normserve {
namespace {

constexpr double kSigmas = 4;

double WeightOf(absl::Span<const float> weight, size_t channel) { return weight.empty() ? 1.0 : weight[channel]; }

// The deviation of the normalised batch: a constant one stays one, also without epsilon.
double Normalised(double variance, double divisor) { return variance == 0 ? 0 : std::sqrt(variance / divisor); }

}  // namespace

LayerGap PredictGap(const NormalizationStatistics& running, const Moments& batch, absl::Span<const float> weight,
                    double epsilon) {
  LayerGap gap;
  const size_t num_features = running.mean.size();
  double eval_squares = 0, train_squares = 0, gap_squares = 0, weight_squares = 0;
  for (size_t c = 0; c < num_features; ++c) {
    const double w = WeightOf(weight, c), variance = batch.BiasedVariance(c);
    const double divisor = running.variance[c] + epsilon, distance = batch.mean[c] - running.mean[c];
    ChannelGap channel;
    weight_squares += w * w;
    if (w != 0) {
      const double train = Normalised(variance, variance + epsilon), eval = Normalised(variance, divisor);
      const double offset = distance == 0 ? 0 : distance / std::sqrt(divisor);
      channel.offset = w * offset;
      channel.rms = std::abs(w) * std::hypot(eval - train, offset);
      if (train != 0) channel.scale_ratio = eval / train;
      eval_squares += w * w * eval * eval;
      train_squares += w * w * train * train;
    }
    gap_squares += channel.rms * channel.rms;
    gap.channels.push_back(channel);
  }
  const auto count = static_cast<double>(num_features);
  gap.rms = std::sqrt(gap_squares / count);
  gap.unit = std::sqrt(weight_squares / count);
  if (train_squares > 0) gap.scale_ratio = std::sqrt(eval_squares / train_squares);
  return gap;
}

double ChainScaleRatio(absl::Span<const LayerGap> layers) {
  double ratio = 1;
  for (const LayerGap& layer : layers) ratio *= layer.scale_ratio;
  return ratio;
}

SamplingNoise PredictNoise(const Moments& batch, absl::Span<const float> weight, double epsilon, double independent,
                           double num_batches) {
  const double shared = 1 + 1 / num_batches;
  double sum = 0, sum_of_squares = 0;
  for (size_t c = 0; c < batch.mean.size(); ++c) {
    const double w = WeightOf(weight, c), variance = batch.BiasedVariance(c);
    const double share = variance == 0 ? 0 : variance / (variance + epsilon);
    const double of_mean = shared * w * w * share / independent;
    const double of_variance = shared * w * w * share * share * share / (2 * (independent - 1));
    sum += of_mean + of_variance;
    sum_of_squares += of_mean * of_mean + of_variance * of_variance;
  }
  if (sum == 0) return {};
  const double spread = 2 * sum_of_squares / (9 * sum * sum);  // 2 / (9 degrees of freedom)
  const double quantile = std::pow(1 - spread + kSigmas * std::sqrt(spread), 3);
  const auto count = static_cast<double>(batch.mean.size());
  return {.rms = std::sqrt(sum / count), .limit = std::sqrt(sum / count * quantile)};
}

}  // namespace normserve
