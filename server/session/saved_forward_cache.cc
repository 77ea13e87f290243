#include "server/session/saved_forward_cache.h"

#include <utility>

#include "kernels/error_reason.h"
#include "server/session/session_name.h"

namespace normserve {
std::string SavedForwardCache::Keep(SavedForward saved) {
  const int64_t bytes = saved.input->size_bytes();
  if (bytes > max_bytes_) return "";
  Entries dropped;  // destroyed after the lock
  absl::MutexLock lock(&mutex_);
  DropTo(bytes, dropped);
  entries_.push_front({.token = MakeSessionUid(), .saved = std::move(saved), .expires = clock_() + max_age_});
  by_token_.emplace(entries_.front().token, entries_.begin());
  size_bytes_ += bytes;
  return entries_.front().token;
}

absl::StatusOr<SavedForward> SavedForwardCache::Find(const std::string& token, const std::string& session_uid) {
  Entries dropped;
  absl::MutexLock lock(&mutex_);
  DropTo(0, dropped);
  const auto found = by_token_.find(token);
  if (found == by_token_.end() || found->second->saved.session_uid != session_uid) {
    return MakeError(absl::StatusCode::kFailedPrecondition, ErrorReason::kTokenDropped,
                     "saved_forward is not kept for this session (any more): send the input again in `resent`, with "
                     "the Normalization that Forward reported",
                     {{"field", "saved_forward"}});
  }
  entries_.splice(entries_.begin(), entries_, found->second);
  if (!found->second->released) found->second->expires = clock_() + max_age_;
  return found->second->saved;
}

void SavedForwardCache::Release(const std::string& token) {
  absl::MutexLock lock(&mutex_);
  const auto found = by_token_.find(token);
  if (found == by_token_.end() || found->second->released) return;
  found->second->released = true;
  found->second->expires = clock_() + kReleasedAge;
}

void SavedForwardCache::Clear() {
  Entries dropped;
  absl::MutexLock lock(&mutex_);
  dropped.swap(entries_);
  by_token_.clear();
  size_bytes_ = 0;
}

int64_t SavedForwardCache::size_bytes() const {
  absl::MutexLock lock(&mutex_);
  return size_bytes_;
}

void SavedForwardCache::DropTo(int64_t room, Entries& dropped) {
  const absl::Time now = clock_();
  for (auto entry = entries_.begin(); entry != entries_.end();) {
    const auto next = std::next(entry);
    if (entry->expires <= now) Drop(entry, dropped);
    entry = next;
  }
  while (!entries_.empty() && size_bytes_ + room > max_bytes_) Drop(std::prev(entries_.end()), dropped);
}

void SavedForwardCache::Drop(Entries::iterator entry, Entries& dropped) {
  size_bytes_ -= entry->saved.input->size_bytes();
  by_token_.erase(entry->token);
  dropped.splice(dropped.end(), entries_, entry);
}

}  // namespace normserve
