// The answers of calls that answer later, waited for.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/synchronization/notification.h"
#include "server/session/session_registry.h"

namespace normserve {

// What `start` hands to the callback that it is given.
template <typename Answer, typename Start>
absl::StatusOr<Answer> AnswerOf(Start start) {
  absl::Notification done;
  std::optional<absl::StatusOr<Answer>> answer;
  start([&](absl::StatusOr<Answer> given) {
    answer = std::move(given);
    done.Notify();
  });
  done.WaitForNotification();
  return *std::move(answer);
}

// An answer that may not be there yet.
template <typename Answer>
struct Promise {
  std::shared_ptr<std::optional<absl::StatusOr<Answer>>> answer =
      std::make_shared<std::optional<absl::StatusOr<Answer>>>();

  auto Callback() const {
    return [to = answer](absl::StatusOr<Answer> given) {
      EXPECT_FALSE(to->has_value()) << "answered twice";
      *to = std::move(given);
    };
  }
  bool is_there() const { return answer->has_value(); }
  const absl::StatusOr<Answer>& operator*() const { return **answer; }
};

inline absl::StatusOr<SessionDescription> Create(SessionRegistry& registry, SessionDraft draft) {
  return AnswerOf<SessionDescription>([&](auto answered) { registry.Create(std::move(draft), std::move(answered)); });
}

inline absl::StatusOr<SessionDescription> Clone(SessionRegistry& registry, absl::string_view name,
                                                const ChangeGuard& guard, std::string clone_name) {
  return AnswerOf<SessionDescription>(
      [&](auto answered) { registry.Clone(name, guard, std::move(clone_name), std::move(answered)); });
}

inline absl::StatusOr<Deletion> Delete(SessionRegistry& registry, absl::string_view name, const ChangeGuard& guard) {
  return AnswerOf<Deletion>([&](auto answered) { registry.Delete(name, guard, std::move(answered)); });
}

inline absl::StatusOr<SessionDescription> SetMode(Session& session, const ChangeGuard& guard, Mode mode) {
  return AnswerOf<SessionDescription>([&](auto answered) { session.SetMode(guard, mode, std::move(answered)); });
}

inline absl::StatusOr<SessionDescription> SetParameters(Session& session, const ChangeGuard& guard,
                                                        std::vector<float> weight, std::vector<float> bias) {
  return AnswerOf<SessionDescription>(
      [&](auto answered) { session.SetParameters(guard, std::move(weight), std::move(bias), std::move(answered)); });
}

inline absl::StatusOr<SnapshotDescription> TakeSnapshot(Session& session, const ChangeGuard& guard, std::string name) {
  return AnswerOf<SnapshotDescription>(
      [&](auto answered) { session.TakeSnapshot(guard, std::move(name), std::move(answered)); });
}

inline absl::StatusOr<SessionDescription> RestoreSnapshot(Session& session, const ChangeGuard& guard,
                                                          std::string name) {
  return AnswerOf<SessionDescription>(
      [&](auto answered) { session.RestoreSnapshot(guard, std::move(name), std::move(answered)); });
}

inline absl::StatusOr<SnapshotDescription> DeleteSnapshot(Session& session, const ChangeGuard& guard,
                                                          std::string name) {
  return AnswerOf<SnapshotDescription>(
      [&](auto answered) { session.DeleteSnapshot(guard, std::move(name), std::move(answered)); });
}

inline absl::StatusOr<ForwardAnswer> CommitForward(Session& session, const ChangeGuard& guard,
                                                   const Fingerprint& fingerprint, ForwardCommit commit) {
  return AnswerOf<ForwardAnswer>(
      [&](auto answered) { session.CommitForward(guard, fingerprint, std::move(commit), std::move(answered)); });
}

}  // namespace normserve
