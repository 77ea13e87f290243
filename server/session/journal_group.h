// One change of several sessions, such as the layers of a model: made, stored and seen together, or not at all.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "server/session/fingerprint.h"
#include "server/session/session_changes.h"
#include "server/session/session_journal.h"

namespace normserve {

// Each session's part is made of its newest content; all parts are one write of the store, as durable as the most
// durable of the sessions asks. A part that cannot be made, or a store that refuses, leaves every session as it was.
//
// Each session remembers the request for itself. A repeat answers for those that do, and changes none, also if sessions
// were opened below the same prefix since.
class JournalGroup : public std::enable_shared_from_this<JournalGroup> {
 public:
  using Made = absl::AnyInvocable<void(absl::StatusOr<std::vector<Answer>>) &&>;

  // `journals` are of one server and each another, at least one. Calls `made` once, as SessionJournal::Change does:
  // with an answer of each that remembers the request, or of all in their order, or the first error.
  //
  // `complete` is called with the answers before the write is handed to the store, with the journals locked: it adds
  // what is to be stored with the change, such as sessions that are opened, or the request where it is remembered for
  // the server and not by the sessions (`request_id` is empty then).
  using Complete = std::function<void(const std::vector<Answer>& answers, StoreWrite& write)>;
  static void Change(std::vector<std::shared_ptr<SessionJournal>> journals, std::string request_id,
                     const Fingerprint& fingerprint, MakeChange make, Made made, Complete complete = nullptr);

 private:
  JournalGroup(std::vector<std::shared_ptr<SessionJournal>> journals, std::string request_id,
               const Fingerprint& fingerprint, MakeChange make, Made made, Complete complete);

  using Callbacks = SessionJournal::Callbacks;
  using Outcome = std::optional<absl::StatusOr<std::vector<Answer>>>;

  // Which change of a journal is this group's.
  struct Part {
    int64_t chain = 0;
    int64_t sequence = 0;
  };

  void Run();
  // These three with all journals locked. What is known already; nothing if a change is due, or *waits is set: it is
  // tried again.
  Outcome Known(bool* waits);
  // The parts; an error undoes those made before.
  absl::StatusOr<std::vector<SessionChange>> MakeAll(bool* waits);
  StoreWrite AppendAll(std::vector<SessionChange> changes);
  void TryAgainAfter(SessionJournal::Pending& pending);

  void Settle(const absl::Status& status);
  void TakeAnswer(size_t index, absl::StatusOr<Answer> answer);

  // Constant.
  const std::vector<std::shared_ptr<SessionJournal>> journals_;
  std::vector<SessionJournal*> locked_in_order_;
  const std::string request_id_;
  const Fingerprint fingerprint_;

  const MakeChange make_;
  const Complete complete_;
  Made made_;
  std::vector<Part> parts_;

  absl::Mutex answers_mutex_;
  std::vector<Answer> answers_ ABSL_GUARDED_BY(answers_mutex_);
  absl::Status status_ ABSL_GUARDED_BY(answers_mutex_);
  size_t num_missing_ ABSL_GUARDED_BY(answers_mutex_) = 0;
};

}  // namespace normserve
