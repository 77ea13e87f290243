// The sessions of one model, changed together.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "server/session/session.h"

namespace normserve {

// Sessions that a name ending in '/' speaks of. Every change is made of all of them or of none, in one transaction of
// the store, and seen so by SessionRegistry::ObserveAll; it answers with one entry a session, in their order. Errors
// are those of Session, naming the session; INVALID_ARGUMENT: `guard` expects a generation or uid, which go with a
// single session.
//
// A repeat of a request answers for the sessions that it was made of.
class Model {
 public:
  // At least one session.
  Model(std::string name, std::vector<std::shared_ptr<Session>> sessions)
      : name_(std::move(name)), sessions_(std::move(sessions)) {}

  template <typename Answer>
  using Answered = Session::Answered<std::vector<Answer>>;

  void SetMode(const ChangeGuard& guard, Mode mode, Answered<SessionDescription> answered) const;
  void TakeSnapshot(const ChangeGuard& guard, std::string name, Answered<SnapshotDescription> answered) const;
  void RestoreSnapshot(const ChangeGuard& guard, std::string name, Answered<SessionDescription> answered) const;
  void DeleteSnapshot(const ChangeGuard& guard, std::string name, Answered<SnapshotDescription> answered) const;
  // To remember the request is the registry's part, as with Session::Delete.
  void Delete(const ChangeGuard& guard, Session::Remember remember, Answered<Deletion> answered) const;

 private:
  template <typename Answer>
  void Change(const ChangeGuard& guard, const Fingerprint& fingerprint, MakeChange change,
              Answered<Answer> answered) const;

  const std::string name_;
  const std::vector<std::shared_ptr<Session>> sessions_;
};

}  // namespace normserve
