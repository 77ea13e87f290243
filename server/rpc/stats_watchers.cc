#include "server/rpc/stats_watchers.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "kernels/error_reason.h"
#include "server/rpc/message_call.h"
#include "server/rpc/unary_call.h"

namespace normserve {
namespace {

// The pace; see StatsWatchers.
constexpr absl::Duration kMinPause = absl::Milliseconds(100);
constexpr absl::Duration kPausePerWatcher = absl::Milliseconds(10);
constexpr int kPauseShare = 50;
constexpr absl::Duration kMaxPause = absl::Seconds(10);
// However many groups there are, changes wake the thread no oftener.
constexpr absl::Duration kMinQuiet = absl::Milliseconds(10);
// Beyond this a watcher is sent everything rather than what it missed.
constexpr size_t kMaxMissed = 1024;
// Of messages on their way, however slowly they are taken; one is sent whatever its length.
constexpr int64_t kMaxHeldBytes = int64_t{256} << 20;

absl::Status Draining() {
  return MakeError(absl::StatusCode::kUnavailable, ErrorReason::kDraining,
                   "the server is draining: watch again, elsewhere or later");
}

// What `make` says, or that memory has run out.
template <typename Make>
auto Guarded(Make make) -> decltype(make()) {
  try {
    return make();
  } catch (const std::exception& exception) {
    return OutOfMemory(exception);
  }
}

}  // namespace

StatsWatchers::StatsWatchers(SessionRegistry& registry, int64_t max_watchers, int64_t max_message_bytes)
    : registry_(registry),
      max_watchers_(max_watchers),
      max_message_bytes_(max_message_bytes),
      thread_([this] { Run(); }) {}

StatsWatchers::~StatsWatchers() {
  {
    absl::MutexLock lock(&mutex_);
    ends_ = true;
  }
  registry_.changes().Wake();
  thread_.join();
}

StatsWatchers::Reactor* StatsWatchers::Watch(grpc::CallbackServerContext* context, CallGate& gate,
                                             const grpc::ByteBuffer& request) {
  auto* call = new WatchCall(*this, gate.observer(), *context, static_cast<int64_t>(request.Length()));
  absl::Status status = Guarded([&] { return Begin(*call, *context, gate, request); });
  if (!status.ok()) {
    absl::MutexLock lock(&mutex_);
    call->End(status);
  }
  return call;
}

absl::Status StatsWatchers::Begin(WatchCall& call, const grpc::CallbackServerContext& context, CallGate& gate,
                                  const grpc::ByteBuffer& request_bytes) {
  // Watching is no work that a drain waits for.
  if (const auto pass = gate.Enter(); !pass.ok()) return pass.status();
  v1::WatchStatsRequest request;
  absl::Status status = ParseMessage(request_bytes, request);
  {
    absl::MutexLock lock(&mutex_);  // its reader may be ending it
    call.session = request.stats().name();
  }
  if (status.ok()) status = CheckSessionMetadata(context, request.stats().name());
  if (!status.ok()) return status;
  const auto stats = WatchedStats::Read(registry_, max_message_bytes_, request);
  if (!stats.ok()) return stats.status();
  // First it counts as watching, then it reads: what changes in between is told twice rather than never.
  status = Add(call, *stats);
  if (!status.ok()) return status;
  const auto message = stats->Message(/*names=*/nullptr);
  if (!message.ok()) return message.status();
  absl::MutexLock lock(&mutex_);
  const auto found = watchers_.find(call.id);
  if (found == watchers_.end() || call.has_ended()) return absl::OkStatus();
  Watcher& watcher = found->second;
  watcher.is_started = true;
  if (message->has_value() && !Send(watcher, **message)) watcher.misses_all = true;
  if (watcher.misses_all || !watcher.missed.empty()) watcher.group->lags = true;
  registry_.changes().Wake();
  return absl::OkStatus();
}

absl::Status StatsWatchers::Add(WatchCall& call, const WatchedStats& stats) {
  absl::MutexLock lock(&mutex_);
  if (is_drained_) return Draining();
  if (static_cast<int64_t>(watchers_.size()) >= max_watchers_) {
    return MakeError(absl::StatusCode::kResourceExhausted, ErrorReason::kLimitReached,
                     absl::StrCat("max_watchers is ", max_watchers_,
                                  " and as many watch already: end some, or raise the limit with --max-watchers"),
                     {{"limit", "max_watchers"}});
  }
  if (watchers_.empty()) registry_.changes().Listen(true);
  call.id = next_id_++;
  auto& group = groups_[stats.key()];
  if (group == nullptr) {
    group = std::make_shared<Group>(stats);
    if (stats.interval() > absl::ZeroDuration()) group->next_time = absl::Now() + stats.interval();
  }
  group->members.insert(call.id);
  watchers_.emplace(call.id, Watcher{.call = &call, .group = group});
  return absl::OkStatus();
}

void StatsWatchers::Drain() {
  absl::MutexLock lock(&mutex_);
  is_drained_ = true;
  for (auto& [id, watcher] : watchers_) watcher.call->End(Draining());
}

void StatsWatchers::OnWriteDone(WatchCall& call, bool ok) {
  absl::MutexLock lock(&mutex_);
  const auto found = watchers_.find(call.id);
  if (found == watchers_.end()) return;
  Watcher& watcher = found->second;
  watcher.is_writing = false;
  held_bytes_ -= std::exchange(watcher.held_bytes, 0);
  if (!ok) return call.End(absl::CancelledError("the caller is gone"));
  if (watcher.missed.empty() && !watcher.misses_all) return;
  watcher.group->lags = true;
  registry_.changes().Wake();
}

void StatsWatchers::OnCancel(WatchCall& call) {
  absl::MutexLock lock(&mutex_);
  call.End(absl::CancelledError("the caller has cancelled"));
}

void StatsWatchers::OnDone(WatchCall& call) {
  absl::MutexLock lock(&mutex_);
  const auto found = watchers_.find(call.id);
  if (found == watchers_.end()) return;
  held_bytes_ -= found->second.held_bytes;
  Group& group = *found->second.group;
  group.members.erase(call.id);
  if (group.members.empty()) groups_.erase(group.stats.key());
  watchers_.erase(found);
  if (watchers_.empty()) registry_.changes().Listen(false);
}

bool StatsWatchers::Send(Watcher& watcher, const grpc::ByteBuffer& message) {
  const auto size_bytes = static_cast<int64_t>(message.Length());
  if (held_bytes_ > 0 && size_bytes > kMaxHeldBytes - held_bytes_) return false;
  held_bytes_ += size_bytes;
  watcher.held_bytes = size_bytes;
  watcher.is_writing = true;
  watcher.call->Write(message);
  return true;
}

void StatsWatchers::Miss(Watcher& watcher, const std::set<std::string>& names) {
  if (!watcher.misses_all) watcher.missed.insert(names.begin(), names.end());
  if (watcher.missed.size() <= kMaxMissed) return;
  watcher.misses_all = true;
  watcher.missed.clear();
}

absl::Time StatsWatchers::DueTime(const Group& group) {
  const bool has_something = group.lags || !group.changed.empty() || group.stats.interval() > absl::ZeroDuration();
  return has_something ? group.next_time : absl::InfiniteFuture();
}

void StatsWatchers::Run() {
  absl::Time last_time = absl::InfinitePast();
  while (true) {
    absl::Time deadline = absl::InfiniteFuture(), quiet_until = absl::InfiniteFuture();
    {
      absl::MutexLock lock(&mutex_);
      if (ends_) return;
      for (const auto& [key, group] : groups_) {
        deadline = std::min(deadline, DueTime(*group));
        quiet_until = std::min(quiet_until, group->next_time);
      }
    }
    const auto names = registry_.changes().Take(std::max(quiet_until, last_time + kMinQuiet), deadline);
    last_time = absl::Now();
    std::vector<std::shared_ptr<Group>> due;
    {
      absl::MutexLock lock(&mutex_);
      for (const auto& [key, group] : groups_) {
        for (const std::string& name : names) {
          if (group->stats.Covers(name)) group->changed.insert(name);
        }
        if (DueTime(*group) <= last_time) due.push_back(group);
      }
    }
    for (const auto& group : due) Tell(group);
  }
}

std::vector<StatsWatchers::Delivery> StatsWatchers::Plan(Group& group) {
  Delivery of_changes{.names = std::exchange(group.changed, {})};
  group.lags = false;
  std::vector<Delivery> lagging;
  for (const int64_t id : group.members) {
    Watcher& watcher = watchers_.at(id);
    if (watcher.call->has_ended()) continue;
    if (!watcher.is_started || watcher.is_writing) {
      Miss(watcher, of_changes.names);
    } else if (watcher.missed.empty() && !watcher.misses_all) {
      of_changes.ids.push_back(id);
    } else {
      Miss(watcher, of_changes.names);
      lagging.push_back({.ids = {id},
                         .is_complete = std::exchange(watcher.misses_all, false),
                         .names = std::exchange(watcher.missed, {})});
    }
  }
  const bool has_something = !of_changes.names.empty() || group.stats.interval() > absl::ZeroDuration();
  if (has_something && !of_changes.ids.empty()) lagging.push_back(std::move(of_changes));
  return lagging;
}

void StatsWatchers::Tell(const std::shared_ptr<Group>& group) {
  const absl::Time start = absl::Now();
  std::vector<Delivery> deliveries;
  {
    absl::MutexLock lock(&mutex_);
    deliveries = Plan(*group);
  }
  // Without the lock: messages are made of many channels, and stored sessions may have to be read.
  for (const Delivery& delivery : deliveries) {
    const auto message =
        Guarded([&] { return group->stats.Message(delivery.is_complete ? nullptr : &delivery.names); });
    absl::MutexLock lock(&mutex_);
    for (const int64_t id : delivery.ids) {
      const auto found = watchers_.find(id);
      if (found == watchers_.end() || found->second.call->has_ended()) continue;
      if (!message.ok()) {
        found->second.call->End(message.status());
      } else if (message->has_value() && !Send(found->second, **message)) {
        Miss(found->second, delivery.names);
        found->second.misses_all = found->second.misses_all || delivery.is_complete;
        group->lags = true;
      }
    }
  }
  absl::MutexLock lock(&mutex_);
  const absl::Time now = absl::Now();
  group->next_time = now + Pause(now - start);
  // Intervals are counted from when a message was due, not from when it was sent, as long as that can be kept.
  if (group->stats.interval() > absl::ZeroDuration()) {
    group->next_time = std::max(group->next_time, start + group->stats.interval());
  }
}

absl::Duration StatsWatchers::Pause(absl::Duration taken) const {
  const auto num_watchers = static_cast<int64_t>(watchers_.size());
  const auto num_groups = static_cast<int64_t>(groups_.size());
  return std::min(kMaxPause, std::max({kMinPause, kPausePerWatcher * num_watchers, kPauseShare * num_groups * taken}));
}

}  // namespace normserve
