// Times as messages.
#pragma once

#include <google/protobuf/timestamp.pb.h>

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace normserve {

void WriteTime(absl::Time time, google::protobuf::Timestamp& message);

// INVALID_ARGUMENT, naming `field`: no time that a Timestamp may hold.
absl::StatusOr<absl::Time> ReadTime(const google::protobuf::Timestamp& message, const std::string& field);

}  // namespace normserve
