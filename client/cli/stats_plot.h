// Statistics as a picture.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "normserve/client.h"

namespace normserve::cli {

inline constexpr int kPlotWidth = 1000;  // pixels
inline constexpr int kPlotHeight = 520;

// A PNG file of kPlotWidth x kPlotHeight: running mean ± standard deviation of each channel, and beside it those of the
// newest batch, if `stats` has it; channels without finite ones are marked below. Few channels are bars, many are
// bands. FAILED_PRECONDITION: the session keeps no running statistics.
absl::StatusOr<std::string> PlotStats(const client::SessionStats& stats);

}  // namespace normserve::cli
