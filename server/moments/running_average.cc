#include "server/moments/running_average.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace normserve {
namespace {

bool Converges(double momentum) { return momentum >= 0 && momentum < 2; }

}  // namespace

double InitialShare(const RunningAverage& average, int64_t num_batches) {
  if (num_batches <= 0) return 1;
  if (average.kind != AverageKind::kExponential || !Converges(average.momentum)) return 0;
  return std::pow(1 - average.momentum, static_cast<double>(num_batches));
}

double EffectiveBatches(const RunningAverage& average, int64_t num_batches) {
  if (num_batches <= 0) return std::numeric_limits<double>::infinity();
  const auto count = static_cast<double>(num_batches);
  if (average.kind == AverageKind::kCumulative) return count;
  const double m = average.momentum;
  if (!Converges(m) || m == 0) return 1;
  const double left = std::pow(1 - m, count);
  // 1 - (1 - m)^k without the cancellation of small m.
  const double gone = m < 1 ? -std::expm1(count * std::log1p(-m)) : 1 - left;
  return (2 - m) / m * gone / (1 + left);
}

double EffectiveBatchesSinceSet(const RunningAverage& average, int64_t since, int64_t num_batches) {
  if (since <= 0 || num_batches <= 0) return std::numeric_limits<double>::infinity();
  const auto count = static_cast<double>(since), all = static_cast<double>(num_batches);
  if (average.kind == AverageKind::kCumulative) return all * all / count;
  const double m = average.momentum;
  if (!Converges(m)) return 1;
  if (m == 0) return std::numeric_limits<double>::infinity();  // what was set is there still
  // 1 - q^x without the cancellation of small m.
  const auto gone = [m](double x) { return m < 1 ? -std::expm1(x * std::log1p(-m)) : 1 - std::pow(1 - m, x); };
  const double debiased = average.kind == AverageKind::kZeroDebiased ? gone(all) * gone(all) : 1;
  return (2 - m) / m / gone(2 * count) * debiased;
}

double NewestWeight(const RunningAverage& average, int64_t num_batches) {
  if (num_batches <= 0) return 0;
  const auto count = static_cast<double>(num_batches);
  if (average.kind == AverageKind::kCumulative) return 1 / count;
  const double m = std::clamp(average.momentum, 0.0, 1.0);
  if (average.kind != AverageKind::kZeroDebiased || m == 0 || m == 1) return m;
  return m / -std::expm1(count * std::log1p(-m));
}

}  // namespace normserve
