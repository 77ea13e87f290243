#include "server/session/joint_change.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/session/field_error.h"

namespace normserve {

absl::Status CheckJointGuard(absl::string_view name, const ChangeGuard& guard) {
  if (!absl::EndsWith(name, "/")) return absl::OkStatus();
  const char* const field = guard.expected_generation.has_value() ? "expected_generation"
                            : !guard.expected_uid.empty()         ? "expected_uid"
                                                                  : nullptr;
  if (field == nullptr) return absl::OkStatus();
  return FieldError(field,
                    absl::StrCat(field, " goes with a single session, and \"", name, "\" names a model: leave it out"));
}

void ChangeJointly(absl::string_view name, const std::vector<std::shared_ptr<Session>>& sessions,
                   const ChangeGuard& guard, const Fingerprint& fingerprint, MakeChange make, JournalGroup::Made made) {
  if (absl::Status status = CheckJointGuard(name, guard); !status.ok()) return std::move(made)(status);
  std::vector<std::shared_ptr<SessionJournal>> journals;
  for (const auto& session : sessions) journals.push_back(session->journal());
  if (absl::EndsWith(name, "/")) {
    return JournalGroup::Change(std::move(journals), guard.request_id, fingerprint, std::move(make), std::move(made));
  }
  journals[0]->Change(
      guard, fingerprint,
      [journal = journals[0], make = std::move(make)](const SessionContent& newest) { return make(*journal, newest); },
      [made = std::move(made)](absl::StatusOr<Answer> answer) mutable {
        if (!answer.ok()) return std::move(made)(answer.status());
        std::vector<Answer> answers;
        answers.push_back(*std::move(answer));
        std::move(made)(std::move(answers));
      });
}

}  // namespace normserve
