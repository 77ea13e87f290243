// One layer as JSON; what it holds is told in statistics_json.h.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/statusor.h"
#include "server/observe/evidence.h"
#include "server/session/session.h"

namespace normserve {

struct LayerReport {
  nlohmann::ordered_json json;
  LayerFinding finding;
};

// Of `session` as it was with `content`. Errors as FindingOf.
absl::StatusOr<LayerReport> ReportOf(const std::shared_ptr<Session>& session, const SessionContent& content);

// RFC 3339, UTC, in milliseconds.
std::string TimeText(absl::Time time);

const char* ModeName(Mode mode);

}  // namespace normserve
