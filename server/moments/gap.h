// The difference between what a layer puts out in evaluation and in training, predicted from moments.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "kernels/batch_norm.h"

namespace normserve {

// One channel over the batch, in units of the layer's output. With w the weight, v the batch's biased variance and m
// its mean, V and M evaluation's, t = 1 / sqrt(v + epsilon), e = 1 / sqrt(V + epsilon):
//   y_eval - y_train = w ((x - M) e - (x - m) t) = w ((x - m) (e - t) + (m - M) e)
struct ChannelGap {
  double rms = 0;          // sqrt(w^2 ((e - t)^2 v + ((m - M) e)^2)): the two terms' product sums to 0 over the batch
  double offset = 0;       // w (m - M) e, by which evaluation's output lies higher on average
  double scale_ratio = 1;  // e / t, evaluation's deviation over training's
};

struct LayerGap {
  double rms = 0;          // over all channels and values
  double unit = 0;         // root mean square of the weight: the output's deviation where variances dwarf epsilon
  double scale_ratio = 1;  // evaluation's output around its means over training's, root mean square over all channels
  std::vector<ChannelGap> channels;
};

// Evaluation with `running` beside training, on the batch of which `batch` has the moments (count >= 1, finite,
// variances
// >= 0, lengths equal); an empty `weight` is 1. A constant channel trains to exactly its bias. Infinite, never NaN,
// where variance and epsilon are both 0 and evaluation divides by it, or where numbers are beyond double.
LayerGap PredictGap(const NormalizationStatistics& running, const Moments& batch, absl::Span<const float> weight,
                    double epsilon);

// The product of the scale ratios of layers that follow each other: what a chain of them does to the last one's output.
// Ten layers whose variance is off by Bessel's correction at n = 64 leave (63/64)^5 of it.
double ChainScaleRatio(absl::Span<const LayerGap> layers);

// What gap to expect of a sound layer: batches are samples.
struct SamplingNoise {
  double rms = 0;    // root of the expected mean square gap
  double limit = 0;  // which a sound layer's gap exceeds once in 30,000 times
};

// A batch of n independent normal values has a mean with variance v / n and a variance with relative variance 2 / (n -
// 1); running statistics that average b such batches add 1 / b of that. To first order the mean square gap is then
//   (1 + 1/b) w^2 (r / n + r^3 / (2 (n - 1))),  r = v / (v + epsilon),
// of which the first part is the mean's. `limit` is the 4-sigma quantile of the sum of all channels' terms, as a scaled
// chi-squared (Satterthwaite 1946, Wilson & Hilferty 1931).
//
// `independent` is n where values hang together, such as neighbouring pixels: fewer than `batch.count`, 2 or more.
// `num_batches` is b, above 0, infinite for exact statistics.
SamplingNoise PredictNoise(const Moments& batch, absl::Span<const float> weight, double epsilon, double independent,
                           double num_batches);

}  // namespace normserve
