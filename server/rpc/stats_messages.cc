#include "server/rpc/stats_messages.h"

#include <limits>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "kernels/error_reason.h"
#include "server/rpc/history_messages.h"
#include "server/rpc/quantiles_message.h"
#include "server/rpc/session_messages.h"
#include "server/session/field_error.h"
#include "server/session/session_report.h"

namespace normserve {
namespace {

constexpr int kMaxSummaryFlagChannels = 100;

v1::ComparisonSource WriteSource(ComparisonSource source) {
  switch (source) {
    case ComparisonSource::kLastBatch:
      return v1::COMPARISON_SOURCE_LAST_BATCH;
    case ComparisonSource::kShadow:
      return v1::COMPARISON_SOURCE_SHADOW;
    case ComparisonSource::kObserved:
      return v1::COMPARISON_SOURCE_OBSERVED;
  }
  return v1::COMPARISON_SOURCE_UNSPECIFIED;
}

// Of `field` over all channels that have it.
std::optional<Quantiles> QuantilesOf(const SessionComparison& comparison,
                                     std::optional<double> ChannelComparison::* field) {
  std::vector<double> values;
  for (const ChannelComparison& channel : comparison.channels) {
    if ((channel.*field).has_value()) values.push_back(*(channel.*field));
  }
  return normserve::QuantilesOf(values);
}

void WriteSummary(const SessionContent& content, absl::Span<const ChannelFlags> flags,
                  const SessionComparison* comparison, v1::StatsSummary& message) {
  const LayerSummary summary = SummaryOf(content, flags);
  message.set_num_features(content.state->config.num_features);
  WriteQuantiles(summary.running_mean, &v1::StatsSummary::mutable_running_mean, message);
  WriteQuantiles(summary.running_variance, &v1::StatsSummary::mutable_running_var, message);
  message.set_batch_count(LastBatchOf(content).count);
  WriteQuantiles(summary.batch_mean, &v1::StatsSummary::mutable_batch_mean, message);
  WriteQuantiles(summary.batch_variance, &v1::StatsSummary::mutable_batch_var, message);
  for (size_t i = 0; i < kNumChannelFlags; ++i) {
    const auto flag = static_cast<ChannelFlag>(i);
    if (summary.NumFlagged(flag) > 0) {
      (*message.mutable_flagged_channels())[std::string(ChannelFlagName(flag))] = summary.NumFlagged(flag);
    }
  }
  if (comparison == nullptr) return;
  if (comparison->drift.has_value()) message.set_drift(*comparison->drift);
  WriteQuantiles(QuantilesOf(*comparison, &ChannelComparison::kl_divergence), &v1::StatsSummary::mutable_kl_divergence,
                 message);
  WriteQuantiles(QuantilesOf(*comparison, &ChannelComparison::wasserstein), &v1::StatsSummary::mutable_wasserstein,
                 message);
  WriteQuantiles(QuantilesOf(*comparison, &ChannelComparison::mean_z), &v1::StatsSummary::mutable_mean_z, message);
  WriteQuantiles(QuantilesOf(*comparison, &ChannelComparison::variance_z), &v1::StatsSummary::mutable_variance_z,
                 message);
}

// One for each reason, with at most `max_channels` of `channels`.
void WriteFlags(absl::Span<const ChannelFlags> flags, Channels channels, int max_channels,
                v1::SessionStatistics& message) {
  for (size_t i = 0; i < kNumChannelFlags; ++i) {
    const auto flag = static_cast<ChannelFlag>(i);
    v1::ChannelFlag* written = nullptr;
    for (size_t c = channels.first; c < channels.first + channels.count; ++c) {
      if (!flags[c].Has(flag)) continue;
      if (written == nullptr) {
        written = message.add_flags();
        // The enumerators have the same names in both worlds.
        v1::FlagReason reason = v1::FLAG_REASON_UNSPECIFIED;
        v1::FlagReason_Parse(absl::StrCat("FLAG_REASON_", ChannelFlagName(flag)), &reason);
        written->set_reason(reason);
      }
      if (written->channels_size() == max_channels) break;
      written->add_channels(static_cast<int64_t>(c));
    }
  }
}

void WriteComparison(const SessionComparison& comparison, ComparisonSource source, Channels channels,
                     v1::Comparison& message) {
  message.set_source(WriteSource(source));
  message.set_count(comparison.count);
  if (comparison.channels.empty()) return;
  for (size_t c = channels.first; c < channels.first + channels.count; ++c) {
    const ChannelComparison& channel = comparison.channels[c];
    const double none = std::numeric_limits<double>::quiet_NaN();
    message.add_kl_divergence(channel.kl_divergence.value_or(none));
    message.add_wasserstein(channel.wasserstein.value_or(none));
    message.add_mean_z(channel.mean_z.value_or(none));
    message.add_variance_ratio(channel.variance_ratio.value_or(none));
    message.add_variance_z(channel.variance_z.value_or(none));
  }
}

// What of `request` is more than names of fields.
struct StatsChoices {
  bool is_summary = false;
  ComparisonSource compare_with = ComparisonSource::kLastBatch;
  std::optional<HistoryChoice> history;  // nothing: none is asked for
};

absl::StatusOr<StatsChoices> ReadChoices(const v1::GetStatsRequest& request) {
  if (absl::EndsWith(request.name(), "/") && request.has_channel_range()) {
    return FieldError("channel_range", absl::StrCat("channel_range goes with a single session, and \"", request.name(),
                                                    "\" names a model: leave it out, or name one of its sessions"));
  }
  StatsChoices choices;
  switch (request.view()) {
    case v1::STATS_VIEW_UNSPECIFIED:
    case v1::STATS_VIEW_CHANNELS:
      break;
    case v1::STATS_VIEW_SUMMARY:
      choices.is_summary = true;
      break;
    default:
      return FieldError("view", absl::StrCat("view is ", static_cast<int>(request.view()),
                                             ": send STATS_VIEW_SUMMARY (1) or STATS_VIEW_CHANNELS (2)"));
  }
  switch (request.compare_with()) {
    case v1::COMPARISON_SOURCE_UNSPECIFIED:
    case v1::COMPARISON_SOURCE_LAST_BATCH:
      break;
    case v1::COMPARISON_SOURCE_SHADOW:
      choices.compare_with = ComparisonSource::kShadow;
      break;
    case v1::COMPARISON_SOURCE_OBSERVED:
      choices.compare_with = ComparisonSource::kObserved;
      break;
    default:
      return FieldError("compare_with",
                        absl::StrCat("compare_with is ", static_cast<int>(request.compare_with()),
                                     ": send COMPARISON_SOURCE_LAST_BATCH (1), COMPARISON_SOURCE_SHADOW (2) or "
                                     "COMPARISON_SOURCE_OBSERVED (3)"));
  }
  if (request.compare_with() != v1::COMPARISON_SOURCE_UNSPECIFIED && !request.return_comparison()) {
    return FieldError("compare_with", "compare_with is set and return_comparison is not: set both or neither");
  }
  if (request.has_history_range()) {
    const auto history = ReadHistoryRange(request.history_range());
    if (!history.ok()) return history.status();
    choices.history = *history;
  }
  return choices;
}

absl::Status WriteStatsOf(const Session& session, const SessionContent& content, const v1::GetStatsRequest& request,
                          const StatsChoices& choices, v1::SessionStatistics& message) {
  const SessionState& state = *content.state;
  const Observations& observations = content.observations;
  const auto channels = ReadChannelRange(request.channel_range(), session.name(), state.config.num_features);
  if (!channels.ok()) return channels.status();
  message.set_name(session.name());
  message.set_uid(session.uid());
  message.set_generation(state.generation);
  message.set_mode(WriteMode(state.mode));
  message.set_first_channel(static_cast<int64_t>(channels->first));
  const auto write = [&](const std::shared_ptr<const Moments>& moments, v1::Moments& to) {
    if (moments != nullptr) WriteMoments(*moments, *channels, to);
  };
  if (request.return_last_batch()) write(observations.last_batch, *message.mutable_last_batch());
  if (request.return_shadow()) write(observations.shadow, *message.mutable_shadow());
  if (choices.history.has_value()) WriteHistory(content, *choices.history, *message.mutable_history());
  std::optional<SessionComparison> comparison;
  if (request.return_comparison()) comparison = CompareWith(content, choices.compare_with);
  const std::vector<ChannelFlags> flags = FlagsOf(content);
  if (choices.is_summary || comparison.has_value()) {
    WriteSummary(content, flags, comparison.has_value() ? &*comparison : nullptr, *message.mutable_summary());
  }
  if (choices.is_summary) {
    message.mutable_statistics()->set_num_batches_tracked(state.running == nullptr ? 0 : state.num_batches_tracked);
    WriteFlags(flags, *channels, kMaxSummaryFlagChannels, message);
    return absl::OkStatus();
  }
  WriteRunningStatistics(state, *channels, *message.mutable_statistics());
  if (comparison.has_value()) {
    WriteComparison(*comparison, choices.compare_with, *channels, *message.mutable_comparison());
  }
  WriteFlags(flags, *channels, std::numeric_limits<int>::max(), message);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Channels> ReadChannelRange(const v1::ChannelRange& range, const std::string& session,
                                          int64_t num_features) {
  if (range.first() < 0 || range.first() >= num_features) {
    return FieldError("channel_range.first", absl::StrCat("channel_range.first is ", range.first(), ": session \"",
                                                          session, "\" has channels 0 up to ", num_features - 1));
  }
  const int64_t rest = num_features - range.first();
  if (range.count() < 0 || range.count() > rest) {
    return FieldError("channel_range.count",
                      absl::StrCat("channel_range.count is ", range.count(), ": from channel ", range.first(),
                                   " on session \"", session, "\" has ", rest, " channels; 0 means all of them"));
  }
  return Channels{.first = static_cast<size_t>(range.first()),
                  .count = static_cast<size_t>(range.count() == 0 ? rest : range.count())};
}

void WriteMoments(const Moments& moments, Channels channels, v1::Moments& message) {
  message.set_count(moments.count);
  message.set_num_samples(moments.num_samples);
  WriteVector(moments.mean, channels, *message.mutable_mean());
  WriteVector(moments.m2, channels, *message.mutable_m2());
}

void WriteRunningStatistics(const SessionState& state, Channels channels, v1::RunningStatistics& message) {
  if (state.running == nullptr) return;
  WriteVector(state.running->mean, channels, *message.mutable_running_mean());
  WriteVector(state.running->variance, channels, *message.mutable_running_var());
  message.set_num_batches_tracked(state.num_batches_tracked);
}

absl::Status CheckReplySize(const std::string& name, const std::vector<SessionContent>& contents, int64_t channel_bytes,
                            int64_t max_bytes, int64_t session_bytes) {
  if (!absl::EndsWith(name, "/")) return absl::OkStatus();
  int64_t size_bytes = static_cast<int64_t>(contents.size()) * session_bytes;
  for (const SessionContent& content : contents) size_bytes += content.state->config.num_features * channel_bytes;
  if (size_bytes <= max_bytes) return absl::OkStatus();
  return MakeError(
      absl::StatusCode::kResourceExhausted, ErrorReason::kLimitReached,
      absl::StrCat("what is asked of the ", contents.size(), " sessions of \"", name, "\" takes ", size_bytes,
                   " bytes, a reply at most ", max_bytes, ": ask for a longer prefix or for single sessions"),
      {{"limit", "max_message_bytes"}});
}

absl::Status WriteStats(const std::vector<std::shared_ptr<Session>>& sessions,
                        const std::vector<SessionContent>& contents, const v1::GetStatsRequest& request,
                        int64_t max_bytes, google::protobuf::RepeatedPtrField<v1::SessionStatistics>& messages) {
  const auto choices = ReadChoices(request);
  if (!choices.ok()) return choices.status();
  // What a channel takes at most; asked before anything is written. Flags are few and short beside it.
  const int num_moments = request.return_last_batch() + request.return_shadow();
  const int num_vectors = 2 * num_moments + (choices->is_summary ? 0 : 2 + 5 * request.return_comparison());
  absl::Status status = CheckReplySize(request.name(), contents, num_vectors * static_cast<int64_t>(sizeof(double)),
                                       max_bytes, choices->history.has_value() ? kMaxHistoryMessageBytes : 0);
  for (size_t i = 0; status.ok() && i < sessions.size(); ++i) {
    status = WriteStatsOf(*sessions[i], contents[i], request, *choices, *messages.Add());
  }
  return status;
}

}  // namespace normserve
