#include "server/moments/calibration.h"

#include <cmath>
#include <map>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/error_reason.h"
#include "server/moments/double_double.h"
#include "server/moments/merge.h"

namespace normserve {
namespace {

absl::Status CalibrationError(ErrorReason reason, absl::string_view message,
                              std::map<std::string, std::string> metadata = {}) {
  return MakeError(absl::StatusCode::kInvalidArgument, reason, message, std::move(metadata));
}

// The size that all batches with values have.
absl::StatusOr<int64_t> CommonSize(absl::Span<const PartView> batches) {
  int64_t size = 0;
  absl::string_view first;
  for (const auto& [id, moments] : batches) {
    if (moments->count == 0) continue;
    if (size == 0) {
      size = moments->count;
      first = id;
    } else if (moments->count != size) {
      return CalibrationError(
          ErrorReason::kShapeMismatch,
          absl::StrCat("part \"", id, "\": count is ", moments->count, ", that of part \"", first, "\" is ", size,
                       ": algorithm 2 needs batches of one size; leave out the last, "
                       "smaller batch, or take POOLED, which any sizes suit"),
          {{"field", "count"}, {"part", std::string(id)}});
    }
  }
  if (size == 1) {
    return CalibrationError(ErrorReason::kBatchTooSmall,
                            "batches have one value a channel: algorithm 2 needs two or more, POOLED does not");
  }
  return size;
}

absl::StatusOr<NormalizationStatistics> AverageBatches(absl::Span<const PartView> batches, size_t num_features,
                                                       int64_t count) {
  const absl::StatusOr<int64_t> size = CommonSize(batches);
  if (!size.ok()) return size.status();
  // The weighted merge of batches of one size is their average; m2 / (m - 1) summed over k batches, through k.
  absl::StatusOr<MergedMoments> merged = MergeParts(batches, num_features, MergePolicy::kWeighted);
  if (!merged.ok()) return merged.status();
  const DoubleDouble divisor = TwoProduct(static_cast<double>(*size - 1), static_cast<double>(count / *size));
  NormalizationStatistics average{.mean = std::move(merged->moments.mean)};
  for (double m2 : merged->moments.m2) average.variance.push_back((DoubleDouble{m2, 0} / divisor).hi);
  return average;
}

absl::StatusOr<NormalizationStatistics> PoolValues(absl::Span<const PartView> batches, size_t num_features) {
  absl::StatusOr<MergedMoments> merged = MergeParts(batches, num_features, MergePolicy::kExact);
  if (!merged.ok()) return merged.status();
  NormalizationStatistics pooled;
  for (size_t c = 0; c < num_features; ++c) pooled.variance.push_back(merged->moments.UnbiasedVariance(c));
  pooled.mean = std::move(merged->moments.mean);
  return pooled;
}

}  // namespace

absl::StatusOr<PopulationStatistics> EstimatePopulation(const PartSet& batches, CalibrationMethod method) {
  return EstimatePopulation(batches.Views(), batches.num_features(), method);
}

absl::StatusOr<PopulationStatistics> EstimatePopulation(absl::Span<const PartView> batches, size_t num_features,
                                                        CalibrationMethod method) {
  PopulationStatistics population;
  for (const auto& [id, moments] : batches) {
    population.num_batches += moments->count > 0;
    population.count += moments->count;
  }
  if (population.count < 2) {
    return CalibrationError(
        ErrorReason::kBatchTooSmall,
        absl::StrCat("the batches have ", population.count, " values a channel in all: a variance needs two or more"),
        {{"field", "count"}});
  }
  absl::StatusOr<NormalizationStatistics> statistics = method == CalibrationMethod::kAlgorithm2
                                                           ? AverageBatches(batches, num_features, population.count)
                                                           : PoolValues(batches, num_features);
  if (!statistics.ok()) return statistics.status();
  population.statistics = *std::move(statistics);
  return population;
}

}  // namespace normserve
