#include "server/session/stored_history.h"

#include <memory>
#include <optional>
#include <utility>

#include "absl/status/statusor.h"
#include "kernels/batch_norm.h"
#include "server/session/records.h"

namespace normserve {
namespace {

void WriteQuantiles(const std::optional<Quantiles>& quantiles, RecordWriter& to) {
  to.Choice(quantiles.has_value());
  if (!quantiles.has_value()) return;
  to.Double(quantiles->min)
      .Double(quantiles->low)
      .Double(quantiles->median)
      .Double(quantiles->high)
      .Double(quantiles->max);
}

std::optional<Quantiles> ReadQuantiles(RecordReader& from) {
  if (!from.Bool()) return std::nullopt;
  Quantiles quantiles;
  for (double* value : {&quantiles.min, &quantiles.low, &quantiles.median, &quantiles.high, &quantiles.max}) {
    *value = from.Double();
  }
  return quantiles;
}

void WriteSummary(const HistorySummary& summary, RecordWriter& to) {
  WriteQuantiles(summary.running_mean, to);
  WriteQuantiles(summary.running_variance, to);
  WriteQuantiles(summary.batch_mean, to);
  WriteQuantiles(summary.batch_variance, to);
  to.Choice(summary.relative_gap.has_value());
  if (summary.relative_gap.has_value()) to.Double(*summary.relative_gap);
}

HistorySummary ReadSummary(RecordReader& from) {
  HistorySummary summary;
  summary.running_mean = ReadQuantiles(from);
  summary.running_variance = ReadQuantiles(from);
  summary.batch_mean = ReadQuantiles(from);
  summary.batch_variance = ReadQuantiles(from);
  if (from.Bool()) summary.relative_gap = from.Double();
  return summary;
}

StoredPoint WritePoint(absl::string_view uid, size_t slot, const HistoryPoint& point) {
  RecordWriter to;
  to.Text(uid).Int(static_cast<int64_t>(slot)).Int(point.update).Int(point.generation).Int(point.lineage);
  to.Int(point.num_batches_tracked).Time(point.time).Int(point.count).Int(point.num_samples);
  to.Choice(point.batch != nullptr);
  if (point.batch != nullptr) to.Vector(point.batch->mean).Vector(point.batch->m2);
  to.Choice(point.summary != nullptr);
  if (point.summary != nullptr) WriteSummary(*point.summary, to);
  return {.slot = static_cast<int64_t>(slot), .record = to.Finish()};
}

absl::StatusOr<HistoryPoint> ReadPoint(const StoredPart& what, absl::string_view uid, const StoredPoint& row) {
  RecordReader from(row.record);
  if (from.Text() != uid || from.Int() != row.slot) from.Spoil(kOfAnotherRow);
  HistoryPoint point;
  point.update = from.Int();
  point.generation = from.Int();
  point.lineage = from.Int();
  point.num_batches_tracked = from.Int();
  point.time = from.Time();
  point.count = from.Int();
  point.num_samples = from.Int();
  if (from.Bool()) {
    Moments batch{.count = point.count};
    batch.mean = from.Vector<double>();
    batch.m2 = from.Vector<double>();
    batch.num_samples = point.num_samples;
    point.batch = std::make_shared<const Moments>(std::move(batch));
  }
  if (from.Bool()) point.summary = std::make_shared<const HistorySummary>(ReadSummary(from));
  return Finished(std::move(point), from, what);
}

}  // namespace

void WriteHistory(absl::string_view uid, const History* before, const History& after, SessionWrite& write) {
  for (size_t slot = 0; slot < kHistorySlots; ++slot) {
    const auto& point = after.slots[slot];
    if (point == nullptr || (before != nullptr && point == before->slots[slot])) continue;
    write.history.push_back(WritePoint(uid, slot, *point));
  }
}

void ReadHistory(const StoredPart& session, const StoredSession& stored, int64_t num_updates, size_t num_features,
                 Observations& observations) {
  if (num_updates == 0 && stored.history.empty()) return;
  auto history = std::make_shared<History>(History{.num_updates = num_updates});
  for (const StoredPoint& row : stored.history) {
    auto point = ReadPoint(session.Of("history"), stored.head.uid, row);
    if (!point.ok() || row.slot < 0 || static_cast<size_t>(row.slot) >= kHistorySlots) continue;
    const auto slot = static_cast<size_t>(row.slot);
    const auto& batch = point->batch;
    if (batch != nullptr && (batch->mean.size() != num_features || batch->m2.size() != num_features)) continue;
    if (!Belongs(*point, slot, num_updates)) continue;
    history->slots[slot] = std::make_shared<const HistoryPoint>(*std::move(point));
  }
  if (const auto& newest = history->slots[RecentSlot(num_updates)];
      newest != nullptr && newest->update == num_updates) {
    observations.last_batch = newest->batch;
  }
  observations.history = std::move(history);
}

}  // namespace normserve
