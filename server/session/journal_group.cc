#include "server/session/journal_group.h"

#include <algorithm>
#include <utility>

#include "server/session/session_errors.h"

// A number of locks that is not known before is beyond Clang's analysis.
#define NORMSERVE_LOCKS_ALL ABSL_NO_THREAD_SAFETY_ANALYSIS

namespace normserve {

void JournalGroup::Change(std::vector<std::shared_ptr<SessionJournal>> journals, std::string request_id,
                          const Fingerprint& fingerprint, MakeChange make, Made made, Complete complete) {
  std::shared_ptr<JournalGroup>(new JournalGroup(std::move(journals), std::move(request_id), fingerprint,
                                                 std::move(make), std::move(made), std::move(complete)))
      ->Run();
}

JournalGroup::JournalGroup(std::vector<std::shared_ptr<SessionJournal>> journals, std::string request_id,
                           const Fingerprint& fingerprint, MakeChange make, Made made, Complete complete)
    : journals_(std::move(journals)),
      request_id_(std::move(request_id)),
      fingerprint_(fingerprint),
      make_(std::move(make)),
      complete_(std::move(complete)),
      made_(std::move(made)) {
  for (const auto& journal : journals_) locked_in_order_.push_back(journal.get());
  std::sort(locked_in_order_.begin(), locked_in_order_.end());
}

void JournalGroup::Run() NORMSERVE_LOCKS_ALL {
  Outcome outcome;
  bool waits = false;
  bool is_made = false, is_stored = false;
  for (SessionJournal* journal : locked_in_order_) journal->mutex_.Lock();
  outcome = Known(&waits);
  if (!outcome.has_value() && !waits) {
    auto changes = MakeAll(&waits);
    if (changes.ok()) {
      StoreWrite write = AppendAll(*std::move(changes));
      is_made = true;
      is_stored = !write.sessions.empty();
      // Under the locks: the store makes the writes of a session in the order of its changes.
      if (is_stored) {
        journals_[0]->surroundings_.store->Write(
            std::move(write), [self = shared_from_this()](absl::Status status) { self->Settle(status); });
      }
    } else if (!waits) {
      outcome = changes.status();
    }
  }
  for (SessionJournal* journal : locked_in_order_) journal->mutex_.Unlock();
  if (outcome.has_value()) return std::move(made_)(*std::move(outcome));
  if (is_made && !is_stored) Settle(absl::OkStatus());
}

JournalGroup::Outcome JournalGroup::Known(bool* waits) NORMSERVE_LOCKS_ALL {
  std::vector<Answer> answers;
  for (const auto& journal : journals_) {
    if (absl::Status status = journal->Recollect(); !status.ok()) return status;
    if (request_id_.empty()) continue;
    const auto found = journal->memory_.Find(request_id_, fingerprint_);
    if (!found.ok()) return found.status();
    if (*found != nullptr) {
      answers.push_back(**found);
    } else if (auto* pending = journal->FindPending(request_id_); pending != nullptr) {
      *waits = true;
      TryAgainAfter(*pending);
      return std::nullopt;
    }
  }
  if (answers.empty()) return std::nullopt;
  return answers;
}

absl::StatusOr<std::vector<SessionChange>> JournalGroup::MakeAll(bool* waits) NORMSERVE_LOCKS_ALL {
  std::vector<SessionChange> changes;
  for (const auto& journal : journals_) {
    auto change = make_(*journal, journal->Newest());
    if (change.ok()) {
      changes.push_back(*std::move(change));
      continue;
    }
    for (const SessionChange& undone : changes) journal->surroundings_.state_budget->Give(undone.taken_bytes);
    if (!journal->pending_.empty()) {
      *waits = true;  // the error may only hold with what is not stored yet
      TryAgainAfter(journal->pending_.back());
    }
    return change.status();
  }
  return changes;
}

StoreWrite JournalGroup::AppendAll(std::vector<SessionChange> changes) NORMSERVE_LOCKS_ALL {
  StoreWrite all;
  std::vector<Answer> answers;
  if (complete_) {
    for (const SessionChange& change : changes) answers.push_back(change.answer);
  }
  {
    absl::MutexLock lock(&answers_mutex_);
    num_missing_ = journals_.size();
    answers_.resize(journals_.size());
  }
  for (size_t i = 0; i < journals_.size(); ++i) {
    SessionJournal& journal = *journals_[i];
    SessionJournal::Made made = [self = shared_from_this(), i](absl::StatusOr<Answer> answer) {
      self->TakeAnswer(i, std::move(answer));
    };
    StoreWrite write = journal.Append({.request_id = request_id_}, fingerprint_, std::move(changes[i]), made);
    parts_.push_back({.chain = journal.chain_, .sequence = journal.sequence_});
    if (!journal.is_stored_) continue;
    all.durability = std::max(all.durability, write.durability);
    std::move(write.sessions.begin(), write.sessions.end(), std::back_inserter(all.sessions));
  }
  if (complete_) complete_(answers, all);
  return all;
}

void JournalGroup::TryAgainAfter(SessionJournal::Pending& pending) {
  pending.waiters.push_back([self = shared_from_this()](bool) { self->Run(); });
}

void JournalGroup::Settle(const absl::Status& status) NORMSERVE_LOCKS_ALL {
  Callbacks callbacks;
  {
    absl::MutexLock lock(journals_[0]->surroundings_.together.get());
    for (size_t i = 0; i < journals_.size(); ++i) {
      absl::MutexLock journal_lock(&journals_[i]->mutex_);
      journals_[i]->Settle(parts_[i].chain, parts_[i].sequence, status, callbacks);
    }
  }
  for (auto& callback : callbacks) std::move(callback)();
}

void JournalGroup::TakeAnswer(size_t index, absl::StatusOr<Answer> answer) {
  absl::StatusOr<std::vector<Answer>> answers;
  {
    absl::MutexLock lock(&answers_mutex_);
    if (answer.ok()) {
      answers_[index] = *std::move(answer);
    } else if (status_.ok()) {
      status_ = answer.status();
    }
    if (--num_missing_ > 0) return;
    if (status_.ok()) {
      answers = std::move(answers_);
    } else {
      answers = status_;
    }
  }
  std::move(made_)(std::move(answers));
}

}  // namespace normserve
