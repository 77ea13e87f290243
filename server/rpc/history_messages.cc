#include "server/rpc/history_messages.h"

#include "absl/strings/str_cat.h"
#include "server/rpc/quantiles_message.h"
#include "server/rpc/timestamp_message.h"
#include "server/session/field_error.h"
#include "server/session/history.h"

namespace normserve {
namespace {

void WritePoint(const HistoryPoint& point, v1::HistoryPoint& message) {
  message.set_update(point.update);
  message.set_generation(point.generation);
  message.set_num_batches_tracked(point.num_batches_tracked);
  WriteTime(point.time, *message.mutable_time());
  message.set_count(point.count);
  message.set_num_samples(point.num_samples);
  if (point.summary == nullptr) return;
  const HistorySummary& summary = *point.summary;
  WriteQuantiles(summary.running_mean, &v1::HistoryPoint::mutable_running_mean, message);
  WriteQuantiles(summary.running_variance, &v1::HistoryPoint::mutable_running_var, message);
  WriteQuantiles(summary.batch_mean, &v1::HistoryPoint::mutable_batch_mean, message);
  WriteQuantiles(summary.batch_variance, &v1::HistoryPoint::mutable_batch_var, message);
  if (summary.relative_gap.has_value()) message.set_relative_gap(*summary.relative_gap);
}

}  // namespace

absl::StatusOr<HistoryChoice> ReadHistoryRange(const v1::HistoryRange& range) {
  HistoryChoice choice;
  if (range.has_since_time()) {
    const auto since = ReadTime(range.since_time(), "history_range.since_time");
    if (!since.ok()) return since.status();
    choice.since = *since;
  }
  if (!range.has_after_generation()) return choice;
  choice.after_generation = range.after_generation();
  if (choice.after_generation >= 0) return choice;
  return FieldError("history_range.after_generation",
                    absl::StrCat("history_range.after_generation is ", choice.after_generation,
                                 ": send a generation, 0 or more, or leave it out for all points"));
}

void WriteHistory(const SessionContent& content, const HistoryChoice& choice,
                  google::protobuf::RepeatedPtrField<v1::HistoryPoint>& messages) {
  for (const HistoryPoint& point : PointsOf(content.observations.history.get(), *content.state)) {
    if (point.time >= choice.since && point.generation > choice.after_generation) WritePoint(point, *messages.Add());
  }
}

}  // namespace normserve
