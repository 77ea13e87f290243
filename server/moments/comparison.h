// How far a batch lies from a reference normal, such as running statistics from the last batch.
#pragma once

#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/batch_norm.h"

namespace normserve {

// One channel. Absent: the batch is too small to tell, or a number it is made of is not finite or is a negative
// variance. Present: never NaN. v and m are the batch's biased variance and mean, V and M the reference's, n the count.
struct ChannelComparison {
  // KL(batch || reference) of the two normals, in nats: (v/V - 1 - ln(v/V) + (m - M)^2 / V) / 2. Needs n >= 2.
  // Infinite where only one variance is 0; where both are: 0 if the means are equal, else infinite.
  std::optional<double> kl_divergence;
  // 2-Wasserstein distance of the two normals, in the values' own unit: sqrt((m - M)^2 + (sqrt v - sqrt V)^2). Finite
  // whatever is 0. Needs n >= 2. Source: Dowson & Landau 1982.
  std::optional<double> wasserstein;
  // (m - M) / sqrt(V / n), in standard errors. V = 0: 0 if the means are equal, else infinite. Needs n >= 1.
  std::optional<double> mean_z;
  // How often a batch of n independent values of the reference lies at least so far from M, on either side.
  std::optional<double> mean_p;
  // F of the variance: v n / (n - 1) / V. Both 0: 1; only V = 0: infinite. Needs n >= 2.
  std::optional<double> variance_ratio;
  // The ratio as a standard normal score (Wilson & Hilferty 1931: the cube root of chi-squared / n is nearly normal),
  // and how often it is so extreme. For normal values; heavy tails and values that hang together score higher.
  std::optional<double> variance_z;
  std::optional<double> variance_p;
};

// `batch` against `reference`, a channel each. A batch of count 0 (whose vectors may be empty) has nothing to compare:
// every field is absent. INVALID_ARGUMENT (SHAPE_MISMATCH): the lengths differ; (INVALID_FIELD): a negative count.
absl::StatusOr<std::vector<ChannelComparison>> CompareChannels(const Moments& batch,
                                                               const NormalizationStatistics& reference);

// How far a layer has drifted, comparable from layer to layer: the root mean square over the channels of `wasserstein`
// as a share of sqrt(V + epsilon), which is about how far evaluation's normalised output lies from what it was made
// for. Channels whose share is not finite are left out; nothing if that leaves none. `channels` are those of
// `reference`.
std::optional<double> Drift(absl::Span<const ChannelComparison> channels, const NormalizationStatistics& reference,
                            double epsilon);

}  // namespace normserve
