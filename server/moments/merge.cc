#include "server/moments/merge.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "kernels/error_reason.h"
#include "server/moments/double_double.h"

namespace normserve {
namespace {

// One channel of all parts.
struct ChannelSums {
  double mean = 0;
  DoubleDouble within;   // sum of m2
  DoubleDouble between;  // sum of n (mean - common)^2
};

ChannelSums SumChannel(const std::vector<const Moments*>& parts, size_t channel, DoubleDouble total) {
  ChannelSums sums;
  DoubleDouble values;
  for (const Moments* part : parts) {
    values = values + TwoProduct(part->mean[channel], static_cast<double>(part->count));
    sums.within = sums.within + DoubleDouble{part->m2[channel], 0};
  }
  // A pair holds count * mean exactly, so parts that are all equal lie at distance 0 from their mean.
  const DoubleDouble common = values / total;
  for (const Moments* part : parts) {
    const DoubleDouble distance = DoubleDouble{part->mean[channel], 0} - common;
    sums.between = sums.between + distance * distance * DoubleDouble{static_cast<double>(part->count), 0};
  }
  sums.mean = common.hi;
  return sums;
}

}  // namespace

absl::StatusOr<MergedMoments> MergeParts(const PartSet& parts, MergePolicy policy) {
  return MergeParts(parts.Views(), parts.num_features(), policy);
}

absl::StatusOr<MergedMoments> MergeParts(absl::Span<const PartView> parts, size_t num_features, MergePolicy policy) {
  MergedMoments merged;
  std::vector<const Moments*> filled;
  int64_t count = 0, num_samples = 0;
  bool knows_samples = true;
  for (const PartView& part : parts) {
    if (part.moments->count == 0) continue;
    filled.push_back(part.moments);
    count += part.moments->count;
    num_samples += part.moments->num_samples;
    knows_samples = knows_samples && part.moments->num_samples > 0;
  }
  merged.num_parts = static_cast<int64_t>(filled.size());
  if (filled.empty()) return merged;

  const DoubleDouble total{static_cast<double>(count), 0};
  for (size_t c = 0; c < num_features; ++c) {
    const ChannelSums sums = SumChannel(filled, c, total);
    const double m2 = (policy == MergePolicy::kExact ? sums.within + sums.between : sums.within).hi;
    const double within = (sums.within / total).hi, between = (sums.between / total).hi;
    if (!std::isfinite(sums.mean) || !std::isfinite(m2) || !std::isfinite(within + between)) {
      return MakeError(
          absl::StatusCode::kInvalidArgument, ErrorReason::kNonFinite,
          absl::StrCat("the parts' values of channel ", c, " lie too far apart for double: send means below 1e150"),
          {{"field", "parts"}, {"channel", absl::StrCat(c)}});
    }
    merged.within.push_back(within);
    merged.between.push_back(between);
    if (policy == MergePolicy::kKeepLocal) continue;
    merged.moments.mean.push_back(sums.mean);
    merged.moments.m2.push_back(m2);
  }
  if (policy != MergePolicy::kKeepLocal) {
    merged.moments.count = count;
    merged.moments.num_samples = knows_samples ? num_samples : 0;
  }
  return merged;
}

}  // namespace normserve
