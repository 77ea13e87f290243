#include "server/session/session_state.h"

#include <limits>

namespace normserve {
namespace {

// Names, counters, map nodes.
constexpr int64_t kFixedBytes = 1024;
// weight, bias: float; running, last batch's, shadow and observed mean and variance: double.
constexpr int64_t kBytesPerChannel = 2 * sizeof(float) + 8 * sizeof(double);

}  // namespace

int64_t StateSizeBytes(int64_t num_features) {
  constexpr int64_t kMaxBytes = std::numeric_limits<int64_t>::max();
  if (num_features > (kMaxBytes - kFixedBytes) / kBytesPerChannel) return kMaxBytes;
  return kFixedBytes + num_features * kBytesPerChannel;
}

}  // namespace normserve
