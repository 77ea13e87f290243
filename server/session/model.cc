#include "server/session/model.h"

#include <utility>

#include "server/session/joint_change.h"
#include "server/session/session_name.h"

namespace normserve {

template <typename Answer>
void Model::Change(const ChangeGuard& guard, const Fingerprint& fingerprint, MakeChange change,
                   Answered<Answer> answered) const {
  ChangeJointly(name_, sessions_, guard, fingerprint, std::move(change),
                TakeAnswersAs<Answer>(guard.request_id, std::move(answered)));
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
  if (absl::Status status = CheckJointGuard(name_, guard); !status.ok()) return std::move(answered)(status);
  JournalGroup::Complete complete;
  if (remember) {
    complete = [remember = std::move(remember)](const std::vector<Answer>& answers, StoreWrite& write) {
      Deletions deletions;
      for (const Answer& answer : answers) deletions.push_back(std::get<Deletion>(answer));
      write.server_request = remember(std::move(deletions));
    };
  }
  std::vector<std::shared_ptr<SessionJournal>> journals;
  for (const auto& session : sessions_) journals.push_back(session->journal());
  JournalGroup::Change(std::move(journals), /*request_id=*/"", Fingerprint{}, SessionDeleting(),
                       TakeAnswersAs<Deletion>("", std::move(answered)), std::move(complete));
}

}  // namespace normserve
