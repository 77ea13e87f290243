// A change of what a name speaks of: a session, or all or some sessions of a model.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/session/change_guard.h"
#include "server/session/journal_group.h"
#include "server/session/request_memory.h"
#include "server/session/session.h"

namespace normserve {

// INVALID_ARGUMENT if `name` names a model and `guard` expects what goes with a single session.
absl::Status CheckJointGuard(absl::string_view name, const ChangeGuard& guard);

// Makes a change of each of `sessions`, which `name` speaks of: of all or of none, in one transaction, as JournalGroup.
// Calls `made` once, with an answer of each or the first error; CheckJointGuard's too.
void ChangeJointly(absl::string_view name, const std::vector<std::shared_ptr<Session>>& sessions,
                   const ChangeGuard& guard, const Fingerprint& fingerprint, MakeChange make, JournalGroup::Made made);

// What takes the answers of such a change as those of kind `Kind`.
template <typename Kind>
JournalGroup::Made TakeAnswersAs(std::string request_id,
                                 absl::AnyInvocable<void(absl::StatusOr<std::vector<Kind>>) &&> answered) {
  return
      [answered = std::move(answered), id = std::move(request_id)](absl::StatusOr<std::vector<Answer>> made) mutable {
        if (!made.ok()) return std::move(answered)(made.status());
        std::vector<Kind> answers;
        for (Answer& each : *made) {
          auto answer = AnswerAs<Kind>(std::move(each), id);
          if (!answer.ok()) return std::move(answered)(answer.status());
          answers.push_back(*std::move(answer));
        }
        std::move(answered)(std::move(answers));
      };
}

}  // namespace normserve
