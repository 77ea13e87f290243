// GetStats and WatchStats as messages; declared in messages.h.
#include <string>

#include "normserve/messages.h"

namespace normserve::client {
namespace {

template <typename Repeated>
std::vector<double> ToVector(const Repeated& repeated) {
  return {repeated.begin(), repeated.end()};
}

// Those of a source that this library has no name for are of the last batch, which is what older servers know.
ComparisonSource FromMessage(v1::ComparisonSource source) {
  const bool is_known = v1::ComparisonSource_IsValid(source) && source != v1::COMPARISON_SOURCE_UNSPECIFIED;
  return is_known ? static_cast<ComparisonSource>(source) : ComparisonSource::kLastBatch;
}

Comparison FromMessage(const v1::Comparison& message) {
  return {.source = FromMessage(message.source()),
          .count = message.count(),
          .kl_divergence = ToVector(message.kl_divergence()),
          .wasserstein = ToVector(message.wasserstein()),
          .mean_z = ToVector(message.mean_z()),
          .variance_ratio = ToVector(message.variance_ratio()),
          .variance_z = ToVector(message.variance_z())};
}

std::optional<Quantiles> FromMessage(bool is_there, const v1::Quantiles& message) {
  if (!is_there) return std::nullopt;
  return Quantiles{.min = message.min(),
                   .low = message.low(),
                   .median = message.median(),
                   .high = message.high(),
                   .max = message.max()};
}

StatsSummary FromMessage(const v1::StatsSummary& message) {
  StatsSummary summary{.num_features = message.num_features(),
                       .running_mean = FromMessage(message.has_running_mean(), message.running_mean()),
                       .running_var = FromMessage(message.has_running_var(), message.running_var()),
                       .batch_count = message.batch_count(),
                       .batch_mean = FromMessage(message.has_batch_mean(), message.batch_mean()),
                       .batch_var = FromMessage(message.has_batch_var(), message.batch_var()),
                       .flagged_channels = {message.flagged_channels().begin(), message.flagged_channels().end()},
                       .kl_divergence = FromMessage(message.has_kl_divergence(), message.kl_divergence()),
                       .wasserstein = FromMessage(message.has_wasserstein(), message.wasserstein()),
                       .mean_z = FromMessage(message.has_mean_z(), message.mean_z()),
                       .variance_z = FromMessage(message.has_variance_z(), message.variance_z())};
  if (message.has_drift()) summary.drift = message.drift();
  return summary;
}

HistoryPoint FromMessage(const v1::HistoryPoint& message) {
  HistoryPoint point{.update = message.update(),
                     .generation = message.generation(),
                     .num_batches_tracked = message.num_batches_tracked(),
                     .time = ToTime(message.time()),
                     .count = message.count(),
                     .num_samples = message.num_samples(),
                     .running_mean = FromMessage(message.has_running_mean(), message.running_mean()),
                     .running_var = FromMessage(message.has_running_var(), message.running_var()),
                     .batch_mean = FromMessage(message.has_batch_mean(), message.batch_mean()),
                     .batch_var = FromMessage(message.has_batch_var(), message.batch_var())};
  if (message.has_relative_gap()) point.relative_gap = message.relative_gap();
  return point;
}

}  // namespace

v1::GetStatsRequest ToMessage(const GetStatsRequest& request) {
  v1::GetStatsRequest message;
  message.set_name(request.name);
  if (request.first_channel != 0 || request.num_channels != 0) {
    message.mutable_channel_range()->set_first(request.first_channel);
    if (request.num_channels != 0) message.mutable_channel_range()->set_count(request.num_channels);
  }
  message.set_return_last_batch(request.return_last_batch);
  message.set_return_shadow(request.return_shadow);
  message.set_view(static_cast<v1::StatsView>(request.view));
  if (request.compare_with.has_value()) {
    message.set_return_comparison(true);
    message.set_compare_with(static_cast<v1::ComparisonSource>(*request.compare_with));
  }
  if (request.history.has_value()) {
    v1::HistoryRange& range = *message.mutable_history_range();
    if (request.history->since.has_value()) *range.mutable_since_time() = ToTimestamp(*request.history->since);
    if (request.history->after_generation.has_value()) range.set_after_generation(*request.history->after_generation);
  }
  return message;
}

SessionStats FromMessage(const v1::SessionStatistics& session) {
  SessionStats stats{.name = session.name(),
                     .uid = session.uid(),
                     .generation = session.generation(),
                     .mode = FromMessage(session.mode()),
                     .statistics = FromMessage(session.statistics()),
                     .first_channel = session.first_channel()};
  if (session.has_last_batch()) stats.last_batch = FromMessage(session.last_batch());
  if (session.has_shadow()) stats.shadow = FromMessage(session.shadow());
  if (session.has_comparison()) stats.comparison = FromMessage(session.comparison());
  if (session.has_summary()) stats.summary = FromMessage(session.summary());
  for (const v1::ChannelFlag& flag : session.flags()) {
    const std::string reason = WithoutPrefix(v1::FlagReason_Name(flag.reason()), "FLAG_REASON_");
    stats.flags[reason] = {flag.channels().begin(), flag.channels().end()};
  }
  for (const v1::HistoryPoint& point : session.history()) stats.history.push_back(FromMessage(point));
  return stats;
}

v1::WatchStatsRequest ToMessage(const WatchStatsRequest& request) {
  v1::WatchStatsRequest message;
  *message.mutable_stats() = ToMessage(request.stats);
  if (request.interval != absl::ZeroDuration()) {
    absl::Duration rest;
    message.mutable_interval()->set_seconds(absl::IDivDuration(request.interval, absl::Seconds(1), &rest));
    message.mutable_interval()->set_nanos(static_cast<int32_t>(rest / absl::Nanoseconds(1)));
  }
  if (request.after_generation.has_value()) message.set_after_generation(*request.after_generation);
  return message;
}

StatsUpdate FromMessage(const v1::WatchStatsReply& message) {
  StatsUpdate update{.deleted_sessions = {message.deleted_sessions().begin(), message.deleted_sessions().end()},
                     .is_complete = message.is_complete()};
  for (const v1::SessionStatistics& session : message.sessions()) update.sessions.push_back(FromMessage(session));
  return update;
}

}  // namespace normserve::client
