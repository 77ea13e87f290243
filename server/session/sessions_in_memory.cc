// Which sessions can be looked at without the store.
#include "server/session/session_registry.h"

namespace normserve {

std::vector<std::shared_ptr<Session>> SessionRegistry::InMemory(int64_t max_count) const {
  std::vector<std::shared_ptr<Session>> sessions;
  absl::ReaderMutexLock lock(&mutex_);
  for (const auto& [name, entry] : sessions_) {
    if (static_cast<int64_t>(sessions.size()) >= max_count) break;
    if (entry.session != nullptr && entry.pending == nullptr) sessions.push_back(entry.session);
  }
  return sessions;
}

}  // namespace normserve
