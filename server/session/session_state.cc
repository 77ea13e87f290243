#include "server/session/session_state.h"

#include <algorithm>
#include <limits>
#include <vector>

namespace normserve {
namespace {

// Names, counters, map nodes.
constexpr int64_t kFixedBytes = 1024;
// weight, bias: float; running mean and variance: double.
constexpr int64_t kBytesPerChannel = 2 * sizeof(float) + 2 * sizeof(double);

}  // namespace

bool AreInitial(const NormalizationStatistics& statistics) {
  const auto all = [](const std::vector<double>& values, double value) {
    return std::all_of(values.begin(), values.end(), [value](double each) { return each == value; });
  };
  return all(statistics.mean, 0) && all(statistics.variance, 1);
}

int64_t StateSizeBytes(int64_t num_features) {
  constexpr int64_t kMaxBytes = std::numeric_limits<int64_t>::max();
  if (num_features > (kMaxBytes - kFixedBytes) / kBytesPerChannel) return kMaxBytes;
  return kFixedBytes + num_features * kBytesPerChannel;
}

}  // namespace normserve
