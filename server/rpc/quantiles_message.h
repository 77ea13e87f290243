// Quantiles as a message.
#pragma once

#include <optional>

#include "normserve/v1/batch_norm_service.pb.h"
#include "server/moments/channel_flags.h"

namespace normserve {

// Into `field` of `message`, such as StatsSummary::mutable_running_mean; nothing leaves it unset.
template <typename Message>
void WriteQuantiles(const std::optional<Quantiles>& quantiles, v1::Quantiles* (Message::*field)(), Message& message) {
  if (!quantiles.has_value()) return;
  v1::Quantiles& written = *(message.*field)();
  written.set_min(quantiles->min);
  written.set_low(quantiles->low);
  written.set_median(quantiles->median);
  written.set_high(quantiles->high);
  written.set_max(quantiles->max);
}

}  // namespace normserve
