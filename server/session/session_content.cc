#include "server/session/session_content.h"

#include <limits>

namespace normserve {

int64_t SessionSizeBytes(int64_t num_features) {
  constexpr int64_t kMaxBytes = std::numeric_limits<int64_t>::max();
  // Of the shadow moments, those observed and those observed before.
  constexpr int64_t kMomentsBytesPerChannel = 6 * sizeof(double);
  const int64_t fixed_bytes = StateSizeBytes(0) + HistorySizeBytes(0);
  const int64_t bytes_per_channel =
      StateSizeBytes(1) - StateSizeBytes(0) + HistorySizeBytes(1) - HistorySizeBytes(0) + kMomentsBytesPerChannel;
  if (num_features > (kMaxBytes - fixed_bytes) / bytes_per_channel) return kMaxBytes;
  return fixed_bytes + num_features * bytes_per_channel;
}

}  // namespace normserve
