// One layer as JSON; what it holds is told in statistics_json.h.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "server/moments/channel_flags.h"
#include "server/session/session.h"
#include "server/session/session_report.h"

namespace normserve {

struct LayerReport {
  nlohmann::ordered_json json;
  std::optional<double> drift;
  std::vector<double> channel_drift;  // [C]; empty where there is nothing to compare
  std::vector<double> channel_gap;    // [C]; empty where there is none
  std::vector<ChannelFlags> flags;    // [C]
};

// Of `session` as it was with `content`. Errors of Diagnose.
absl::StatusOr<LayerReport> ReportOf(const std::shared_ptr<Session>& session, const SessionContent& content);

// RFC 3339, UTC, in milliseconds.
std::string TimeText(absl::Time time);

const char* ModeName(Mode mode);

}  // namespace normserve
