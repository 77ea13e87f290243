// What is to be said of a session's statistics: its layer in a few numbers, channels that need a look, drift.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "server/moments/channel_flags.h"
#include "server/moments/comparison.h"
#include "server/session/session_content.h"

namespace normserve {

// The layer as its session knows it. Points into `state`, which outlives it.
LayerStatistics StatisticsOf(const SessionState& state);

// The newest batch that updated the running statistics; no moments if none is known.
const Moments& LastBatchOf(const SessionContent& content);

// Each channel's flags, by the state and the newest batch.
std::vector<ChannelFlags> FlagsOf(const SessionContent& content);

// The layer in a few numbers; `flags` are FlagsOf the same.
LayerSummary SummaryOf(const SessionContent& content, absl::Span<const ChannelFlags> flags);

// What running statistics are compared with.
enum class ComparisonSource {
  kLastBatch,  // the newest batch that updated them
  kShadow,     // the shadow moments
  kObserved,   // what Observe was told
};

struct SessionComparison {
  int64_t count = 0;                        // values a channel of the source; 0: nothing to compare
  std::vector<ChannelComparison> channels;  // [C]; empty where count is 0
  std::optional<double> drift;              // over all channels; see Drift
};

// The source against the running statistics. Nothing to compare where there is no such data or no running statistics.
SessionComparison CompareWith(const SessionContent& content, ComparisonSource source);

}  // namespace normserve
