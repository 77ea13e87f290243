#include "server/rpc/timestamp_message.h"

#include <google/protobuf/util/time_util.h>

#include "absl/strings/str_cat.h"
#include "server/session/field_error.h"

namespace normserve {

void WriteTime(absl::Time time, google::protobuf::Timestamp& message) {
  message.set_seconds(absl::ToUnixSeconds(time));
  message.set_nanos(static_cast<int>((time - absl::FromUnixSeconds(message.seconds())) / absl::Nanoseconds(1)));
}

absl::StatusOr<absl::Time> ReadTime(const google::protobuf::Timestamp& message, const std::string& field) {
  using google::protobuf::util::TimeUtil;
  const bool is_valid = message.seconds() >= TimeUtil::kTimestampMinSeconds &&
                        message.seconds() <= TimeUtil::kTimestampMaxSeconds && message.nanos() >= 0 &&
                        message.nanos() < 1'000'000'000;
  if (is_valid) return absl::FromUnixSeconds(message.seconds()) + absl::Nanoseconds(message.nanos());
  return FieldError(field, absl::StrCat(field, " has ", message.seconds(), " seconds and ", message.nanos(),
                                        " nanos: send a time of the years 1 to 9999 with 0 to 999,999,999 nanos"));
}

}  // namespace normserve
