// A store's memory of a failed sync.
#pragma once

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "kernels/error_reason.h"

namespace normserve {

// After a failed sync the kernel may have dropped what it could not write and says so once; the next sync succeeds. So
// nobody knows what is on the disk, and a store whose sync failed takes no more writes. Thread-safe.
class SyncFailure {
 public:
  // `error` is what the sync gave. The first one counts.
  void Note(const absl::Status& error) {
    absl::MutexLock lock(&mu_);
    if (!status_.ok()) return;
    status_ = MakeError(absl::StatusCode::kUnavailable, ErrorReason::kStoreRefused,
                        absl::StrCat("a sync failed, so nobody knows what is on the disk: check it, then restart the "
                                     "server, which serves what is there: ",
                                     error.message()));
  }

  // OK, or what every write is answered.
  absl::Status status() const {
    absl::MutexLock lock(&mu_);
    return status_;
  }

 private:
  mutable absl::Mutex mu_;
  absl::Status status_ ABSL_GUARDED_BY(mu_);
};

}  // namespace normserve
