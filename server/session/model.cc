#include "server/session/model.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/session/field_error.h"
#include "server/session/session_name.h"

namespace normserve {

template <typename Answer>
void Model::Change(const ChangeGuard& guard, const Fingerprint& fingerprint, MakeChange change,
                   Answered<Answer> answered, JournalGroup::Remember remember) const {
  const char* const field = guard.expected_generation.has_value() ? "expected_generation"
                            : !guard.expected_uid.empty()         ? "expected_uid"
                                                                  : nullptr;
  if (field != nullptr) {
    return std::move(answered)(FieldError(
        field, absl::StrCat(field, " goes with a single session, and \"", name_, "\" names a model: leave it out")));
  }
  std::vector<std::shared_ptr<SessionJournal>> journals;
  for (const auto& session : sessions_) journals.push_back(session->journal_);
  JournalGroup::Change(
      std::move(journals), guard.request_id, fingerprint, std::move(change),
      [answered = std::move(answered),
       id = guard.request_id](absl::StatusOr<std::vector<normserve::Answer>> made) mutable {
        if (!made.ok()) return std::move(answered)(made.status());
        std::vector<Answer> answers;
        for (auto& each : *made) {
          auto answer = AnswerAs<Answer>(std::move(each), id);
          if (!answer.ok()) return std::move(answered)(answer.status());
          answers.push_back(*std::move(answer));
        }
        std::move(answered)(std::move(answers));
      },
      std::move(remember));
}

void Model::SetMode(const ChangeGuard& guard, Mode mode, Answered<SessionDescription> answered) const {
  const Fingerprint fingerprint = FingerprintBuilder("SetMode").Add(name_).Add(static_cast<int64_t>(mode)).Finish();
  Change(guard, fingerprint, ModeChange(mode), std::move(answered));
}

void Model::TakeSnapshot(const ChangeGuard& guard, std::string name, Answered<SnapshotDescription> answered) const {
  if (absl::Status status = CheckSnapshotName("snapshot", name); !status.ok()) return std::move(answered)(status);
  const Fingerprint fingerprint = FingerprintBuilder("SnapshotState").Add(name_).Add(absl::string_view(name)).Finish();
  Change(guard, fingerprint, SnapshotTaking(std::move(name)), std::move(answered));
}

void Model::RestoreSnapshot(const ChangeGuard& guard, std::string name, Answered<SessionDescription> answered) const {
  if (absl::Status status = CheckSnapshotName("snapshot", name); !status.ok()) return std::move(answered)(status);
  const Fingerprint fingerprint = FingerprintBuilder("RestoreState").Add(name_).Add(absl::string_view(name)).Finish();
  Change(guard, fingerprint, SnapshotRestoring(std::move(name)), std::move(answered));
}

void Model::DeleteSnapshot(const ChangeGuard& guard, std::string name, Answered<SnapshotDescription> answered) const {
  if (absl::Status status = CheckSnapshotName("snapshot", name); !status.ok()) return std::move(answered)(status);
  const Fingerprint fingerprint = FingerprintBuilder("DeleteSnapshot").Add(name_).Add(absl::string_view(name)).Finish();
  Change(guard, fingerprint, SnapshotDeleting(std::move(name)), std::move(answered));
}

void Model::Delete(const ChangeGuard& guard, Session::Remember remember, Answered<Deletion> answered) const {
  JournalGroup::Remember remember_all;
  if (remember) {
    remember_all = [remember = std::move(remember)](const std::vector<Answer>& answers) {
      Deletions deletions;
      for (const Answer& answer : answers) deletions.push_back(std::get<Deletion>(answer));
      return remember(std::move(deletions));
    };
  }
  Change(guard, Fingerprint{}, SessionDeleting(), std::move(answered), std::move(remember_all));
}

}  // namespace normserve
