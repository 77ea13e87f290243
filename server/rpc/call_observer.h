// Who is told of every call.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace normserve {

struct EndedCall {
  absl::string_view method;  // "Forward"; outlives the program
  absl::StatusCode code = absl::StatusCode::kOk;
  // From the request being here whole (of a stream: from its begin) to the answer being ready to leave; of a watch, as
  // long as it went on.
  absl::Duration duration;
  int64_t request_bytes = 0;  // of the message, or of all of a stream
  int64_t reply_bytes = 0;    // likewise; 0 where a call with one reply failed
};

// Thread-safe.
class CallObserver {
 public:
  virtual ~CallObserver() = default;

  // Once a call, before its answer leaves. Must be quick and not block: it is a part of every call.
  virtual void CallEnded(const EndedCall& call) = 0;
};

}  // namespace normserve
