#include "server/session/history.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "server/moments/gap.h"

namespace normserve {
namespace {

constexpr size_t kFirstSlots = kRecentBatches;  // updates 1, 2, 4
constexpr size_t kLevelSlots = kFirstSlots + 3;
constexpr int64_t kPointsPerLevel = 4;
constexpr int kFirstLevel = 3;  // multiples of 2^3
constexpr int kLastLevel = 14;
constexpr size_t kReplacementSlots = kLevelSlots + kPointsPerLevel * (kLastLevel - kFirstLevel + 1);
constexpr int64_t kReplacements = kHistorySlots - kReplacementSlots;
static_assert(kReplacements == 4);

size_t ReplacementSlot(const HistoryPoint& point) {
  return kReplacementSlots + static_cast<size_t>(point.lineage % kReplacements);
}

std::vector<double> VariancesOf(const Moments& batch) {
  std::vector<double> variances;
  variances.reserve(batch.m2.size());
  for (size_t c = 0; c < batch.m2.size(); ++c) variances.push_back(batch.BiasedVariance(c));
  return variances;
}

void SummarizeRunning(const SessionState& state, HistorySummary& summary) {
  if (state.running == nullptr) return;
  summary.running_mean = QuantilesOf(state.running->mean);
  summary.running_variance = QuantilesOf(state.running->variance);
}

void SummarizeBatch(const Moments& batch, HistorySummary& summary) {
  summary.batch_mean = QuantilesOf(batch.mean);
  summary.batch_variance = QuantilesOf(VariancesOf(batch));
}

void SummarizeGap(const SessionState& state, const Moments& batch, HistorySummary& summary) {
  if (state.running == nullptr) return;
  const LayerGap gap = PredictGap(*state.running, batch, state.parameters->weight, state.config.epsilon);
  if (gap.unit > 0) summary.relative_gap = gap.rms / gap.unit;
}

HistoryPoint PointOf(const SessionState& state, int64_t update) {
  return {.update = update,
          .generation = state.generation,
          .lineage = state.lineage,
          .num_batches_tracked = state.num_batches_tracked,
          .time = state.update_time};
}

}  // namespace

size_t RecentSlot(int64_t update) { return static_cast<size_t>(update % kRecentBatches); }

std::optional<size_t> ThinnedSlot(int64_t update) {
  if (update == 1 || update == 2) return kFirstSlots + static_cast<size_t>(update) - 1;
  if (update == 4) return kFirstSlots + 2;
  if (update % (1 << kFirstLevel) != 0) return std::nullopt;
  const int level = std::min(std::countr_zero(static_cast<uint64_t>(update)), kLastLevel);
  // Of a level's updates, odd multiples of its power, each is two multiples after the one before; of the last level's,
  // all multiples, one.
  const int64_t nth = level == kLastLevel ? update >> level : update >> (level + 1);
  return kLevelSlots + static_cast<size_t>((level - kFirstLevel) * kPointsPerLevel + nth % kPointsPerLevel);
}

bool Belongs(const HistoryPoint& point, size_t slot, int64_t num_updates) {
  if (point.update < 0 || point.update > num_updates) return false;
  if (point.count == 0) return point.lineage >= 0 && slot == ReplacementSlot(point);
  if (point.update < 1) return false;
  if (point.batch == nullptr) return slot == ThinnedSlot(point.update);
  return slot == RecentSlot(point.update) && point.update > num_updates - kRecentBatches;
}

std::shared_ptr<const History> WithBatch(const History* history, const SessionState& after,
                                         std::shared_ptr<const Moments> batch) {
  auto next = history == nullptr ? std::make_shared<History>() : std::make_shared<History>(*history);
  HistoryPoint point = PointOf(after, ++next->num_updates);
  point.count = batch->count;
  point.num_samples = batch->num_samples;
  if (const auto slot = ThinnedSlot(point.update); slot.has_value()) {
    HistorySummary summary;
    SummarizeRunning(after, summary);
    SummarizeBatch(*batch, summary);
    SummarizeGap(after, *batch, summary);
    HistoryPoint thinned = point;
    thinned.summary = std::make_shared<const HistorySummary>(summary);
    next->slots[*slot] = std::make_shared<const HistoryPoint>(std::move(thinned));
  }
  point.batch = std::move(batch);
  const size_t recent = RecentSlot(point.update);
  next->slots[recent] = std::make_shared<const HistoryPoint>(std::move(point));
  return next;
}

std::shared_ptr<const History> WithReplacement(const History* history, const SessionState& after) {
  auto next = history == nullptr ? std::make_shared<History>() : std::make_shared<History>(*history);
  HistoryPoint point = PointOf(after, next->num_updates);
  HistorySummary summary;
  SummarizeRunning(after, summary);
  point.summary = std::make_shared<const HistorySummary>(summary);
  const size_t slot = ReplacementSlot(point);
  next->slots[slot] = std::make_shared<const HistoryPoint>(std::move(point));
  return next;
}

std::vector<HistoryPoint> PointsOf(const History* history, const SessionState& newest) {
  std::vector<HistoryPoint> points;
  if (history == nullptr) return points;
  for (const auto& point : history->slots) {
    if (point != nullptr) points.push_back(*point);
  }
  std::sort(points.begin(), points.end(), [](const HistoryPoint& a, const HistoryPoint& b) {
    return std::pair(a.generation, a.batch != nullptr) < std::pair(b.generation, b.batch != nullptr);
  });
  // A batch that is both recent and thinned is one point with all that is known.
  std::vector<HistoryPoint> merged;
  for (HistoryPoint& point : points) {
    if (!merged.empty() && merged.back().generation == point.generation) {
      merged.back().batch = std::move(point.batch);
    } else {
      merged.push_back(std::move(point));
    }
  }
  for (HistoryPoint& point : merged) {
    const bool is_newest = &point == &merged.back() && point.lineage == newest.lineage &&
                           point.num_batches_tracked == newest.num_batches_tracked;
    if (point.batch == nullptr || point.summary != nullptr) continue;
    HistorySummary summary;
    SummarizeBatch(*point.batch, summary);
    if (is_newest) {
      SummarizeRunning(newest, summary);
      SummarizeGap(newest, *point.batch, summary);
    }
    point.summary = std::make_shared<const HistorySummary>(summary);
  }
  return merged;
}

std::vector<std::shared_ptr<const Moments>> RecentBatches(const History* history) {
  std::vector<std::shared_ptr<const Moments>> batches;
  if (history == nullptr) return batches;
  for (int64_t update = std::max<int64_t>(1, history->num_updates - kRecentBatches + 1); update <= history->num_updates;
       ++update) {
    const auto& point = history->slots[RecentSlot(update)];
    if (point != nullptr && point->update == update) batches.push_back(point->batch);
  }
  return batches;
}

int64_t HistorySizeBytes(int64_t num_features) {
  constexpr int64_t kPointBytes = sizeof(HistoryPoint) + sizeof(HistorySummary) + 64;  // and what the heap adds
  return static_cast<int64_t>(sizeof(History)) + static_cast<int64_t>(kHistorySlots) * kPointBytes +
         kRecentBatches * num_features * static_cast<int64_t>(2 * sizeof(double));
}

}  // namespace normserve
