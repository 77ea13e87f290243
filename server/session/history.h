// What a session has seen of its batches: the newest ones whole, older ones in a few numbers and ever fewer of them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/time/time.h"
#include "kernels/batch_norm.h"
#include "server/moments/channel_flags.h"
#include "server/session/session_state.h"

namespace normserve {

// Of a layer after a change, over its channels. Absent: not finite, or not known.
struct HistorySummary {
  std::optional<Quantiles> running_mean, running_variance;
  std::optional<Quantiles> batch_mean, batch_variance;  // the variance biased
  // Of evaluation beside training on this batch: PredictGap's rms over its unit.
  std::optional<double> relative_gap;
};

// A batch that was folded into the running statistics, or a replacement of these. Immutable once shared.
struct HistoryPoint {
  int64_t update = 0;      // batches that the session had folded in, this one too; never set back
  int64_t generation = 0;  // after the change, as all below
  int64_t lineage = 0;
  int64_t num_batches_tracked = 0;
  absl::Time time;
  int64_t count = 0;                     // values a channel of the batch; 0: no batch, the statistics were replaced
  int64_t num_samples = 0;               // N of the batch
  std::shared_ptr<const Moments> batch;  // [C] each; of the newest kRecentBatches, else null
  std::shared_ptr<const HistorySummary> summary;  // null: none was taken
};

// The newest batches are kept whole, in a ring.
inline constexpr int64_t kRecentBatches = 8;
// Points beside them: update 1, 2 and 4; of the multiples of 8 the newest four of each power of two that divides them,
// up to 2^14; the newest four replacements. So the older, the sparser: 63 at most, back to 65,536 updates.
inline constexpr size_t kHistorySlots = kRecentBatches + 3 + 12 * 4 + 4;

// Immutable once shared; beside a state, as its observations are.
struct History {
  int64_t num_updates = 0;
  std::array<std::shared_ptr<const HistoryPoint>, kHistorySlots> slots;  // null: nothing yet
};

// The slot of a point with this update, whole or in numbers; nothing: no such point is kept.
size_t RecentSlot(int64_t update);
std::optional<size_t> ThinnedSlot(int64_t update);
// Whether a point may be in a slot, at the end of `num_updates` updates.
bool Belongs(const HistoryPoint& point, size_t slot, int64_t num_updates);

// `history` (null: none so far) and the batch that made `after`, of `num_samples` samples.
std::shared_ptr<const History> WithBatch(const History* history, const SessionState& after,
                                         std::shared_ptr<const Moments> batch);
// And a replacement of the running statistics, which made `after`.
std::shared_ptr<const History> WithReplacement(const History* history, const SessionState& after);

// The points by rising generation, one for each. Of the recent ones `batch` is set, and `summary` at least of the
// batch; that of the newest has `newest`, the state as it is now, where nothing else has changed the running statistics
// since.
std::vector<HistoryPoint> PointsOf(const History* history, const SessionState& newest);

// The recent batches, oldest first; some may be missing where a store lost them.
std::vector<std::shared_ptr<const Moments>> RecentBatches(const History* history);

// Bytes of the slots and of what is in them, for `num_features` channels.
int64_t HistorySizeBytes(int64_t num_features);

}  // namespace normserve
