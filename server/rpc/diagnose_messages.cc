#include "server/rpc/diagnose_messages.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/rpc/moments_message.h"

namespace normserve {
namespace {

// The enumerators have the same names in both worlds.
v1::Verdict WriteVerdict(Verdict verdict) {
  v1::Verdict written = v1::VERDICT_UNSPECIFIED;
  v1::Verdict_Parse(absl::StrCat("VERDICT_", VerdictName(verdict)), &written);
  return written;
}

v1::Cause WriteCause(Cause cause) {
  v1::Cause written = v1::CAUSE_UNSPECIFIED;
  v1::Cause_Parse(absl::StrCat("CAUSE_", CauseName(cause)), &written);
  return written;
}

}  // namespace

absl::StatusOr<DiagnoseRequest> ReadDiagnoseRequest(const v1::DiagnoseRequest& message) {
  DiagnoseRequest request{.name = message.name(), .samples_per_batch = message.samples_per_batch()};
  auto given = ReadGiven("", message);
  if (!given.ok()) return given.status();
  request.moments = std::move(given->moments);
  request.layers = std::move(given->layers);
  request.observed = message.has_observed();
  return request;
}

void WriteDiagnosis(const SessionDiagnosis& diagnosis, bool with_channels, v1::Diagnosis& message) {
  const LayerDiagnosis& layer = diagnosis.layer;
  message.set_name(diagnosis.name);
  message.set_uid(diagnosis.uid);
  message.set_generation(diagnosis.generation);
  message.set_verdict(WriteVerdict(layer.verdict));
  if (layer.gap.has_value()) {
    message.set_gap_rms(layer.gap->rms);
    message.set_predicted_gap_rms(layer.predicted_rms);
    message.set_relative_gap(layer.RelativeGap());
    message.set_sampling_noise(layer.noise.rms);
    message.set_sampling_noise_limit(layer.noise.limit);
    if (with_channels) {
      for (const ChannelGap& channel : layer.gap->channels) message.add_channel_gap_rms(channel.rms);
    }
  }
  for (const CauseShare& share : layer.causes) {
    v1::CauseShare* cause = message.add_causes();
    cause->set_cause(WriteCause(share.cause));
    cause->set_share(share.share);
  }
  for (size_t i = 0; i < kNumChannelFlags; ++i) {
    const auto flag = static_cast<ChannelFlag>(i);
    int64_t num_flagged = 0;
    for (const ChannelFlags& flags : layer.flags) num_flagged += flags.Has(flag);
    if (num_flagged > 0) (*message.mutable_flagged_channels())[std::string(ChannelFlagName(flag))] = num_flagged;
  }
  message.set_explanation(layer.explanation);
  message.set_advice(layer.advice);
  message.set_batch_count(diagnosis.batch_count);
}

}  // namespace normserve
