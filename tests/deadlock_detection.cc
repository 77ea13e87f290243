// Part of every test program: see server/main.cc, which does the same for the server.
#include "absl/synchronization/mutex.h"

namespace normserve {
namespace {

[[maybe_unused]] const bool kIsOff = [] {
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  return true;
}();

}  // namespace
}  // namespace normserve
