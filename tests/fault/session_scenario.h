// A client of sessions that repeats what was not answered, keeps a log, and says what must be there after a crash.
#pragma once

#include <cstdint>
#include <functional>
#include <future>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "server/session/session_registry.h"

namespace normserve {

// What a reader beside the client was told of the sessions. Thread-safe.
class SessionReader {
 public:
  // Null: none. Waits for a look under way.
  void Attach(SessionRegistry* registry) ABSL_LOCKS_EXCLUDED(mutex_);
  void Look() ABSL_LOCKS_EXCLUDED(mutex_);
  // The highest generation by uid.
  std::map<std::string, int64_t> generations() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  mutable absl::Mutex mutex_;
  SessionRegistry* registry_ ABSL_GUARDED_BY(mutex_) = nullptr;
  std::map<std::string, int64_t> generations_ ABSL_GUARDED_BY(mutex_);
};

// The scenario: sessions created, trained, observed, reset, merged, changed, kept as snapshots, restored, cloned,
// deleted, and requests repeated. What breaks a promise is collected as text.
class SessionScenario {
 public:
  explicit SessionScenario(Durability durability) : durability_(durability) {}

  // Called after every UNAVAILABLE with the number of them so far.
  void OnRefused(std::function<void(int64_t)> hook) { on_refused_ = std::move(hook); }

  // Runs one half (0 or 1) of it. A call that answers UNAVAILABLE is repeated three times, then its outcome is unknown
  // and the client goes on.
  void RunHalf(SessionRegistry& registry, int half);

  // Of sessions that were started again, whatever the end: nothing that was acknowledged or read is gone.
  void CheckWhatIsThere(SessionRegistry& registry, const std::map<std::string, int64_t>& read_generations);
  // Repeats every call, those of unknown outcome first of all: the others answer as they did.
  void RepeatAll(SessionRegistry& registry);
  // Where no outcome is unknown: the sessions are, bit for bit, those of a registry without a store that got every
  // acknowledged change once.
  void CompareWithModel(SessionRegistry& registry);

  const std::vector<std::string>& broken_promises() const { return broken_promises_; }
  int64_t num_unknown() const;
  // UNAVAILABLE answers.
  int64_t num_refused() const { return num_refused_; }

 private:
  enum class Kind {
    kCreate,
    kClone,
    kDelete,
    kTrain,
    kShadow,   // a Forward whose moments are merged beside the state
    kObserve,  // the argument is the part's id
    kReset,    // the same, after which nothing else is observed
    kPart,     // brought to a merge of the argument's name; the value is its id too
    kMerge,    // ends it
    kSetMode,
    kSetParameters,
    kSnapshot,
    kRestore,
    kDeleteSnapshot
  };
  enum class Outcome { kNotSent, kUnknown, kAcknowledged, kRefusedForGood };

  // A call, as it is sent each time, and what came of it.
  struct Call {
    Kind kind = Kind::kCreate;
    std::string session;   // the client's own name for it
    std::string argument;  // a snapshot; what is cloned
    int64_t value = 0;     // makes the numbers of this call; a mode
    std::string request_id;
    std::string expected_uid;
    int64_t expected_generation = 0;  // kClone, of the source
    Outcome outcome = Outcome::kNotSent;
    std::string answer;
    int64_t generation = 0;
  };
  struct Answered {
    std::string text;  // all of the answer, the vectors it was computed with too
    std::string uid;
    int64_t generation = 0;
  };

  void Run(SessionRegistry& registry, Call call);
  // Sends them one after the other without waiting for answers.
  void RunTogether(SessionRegistry& registry, std::vector<Call> calls);
  // Fills in what the client knows; false: it does not know enough to send it.
  bool Prepare(SessionRegistry& registry, Call& call);
  void Send(SessionRegistry& registry, size_t call);
  void Log(size_t call, const absl::StatusOr<Answered>& answered);
  bool MayFail(const Call& call, const absl::Status& status) const;
  // Whether a call of this kind for the session and argument has, or may have, been made.
  bool MayHaveBeen(Kind kind, const std::string& session, const std::string& argument = "") const;
  bool WasAcknowledged(Kind kind, const std::string& session, const std::string& argument = "") const;
  void Break(const Call& call, const std::string& what);

  absl::StatusOr<Answered> Issue(SessionRegistry& registry, const std::string& name, const Call& call) const;
  std::future<absl::StatusOr<Answered>> Start(SessionRegistry& registry, const std::string& name,
                                              const Call& call) const;
  SessionDraft DraftOf(const Call& call) const;
  // The calls that made a session, in the order they were made in: those sent together were logged as they were sent.
  std::vector<const Call*> HistoryOf(const std::string& session) const;
  void Replay(SessionRegistry& model, const std::string& session);

  const Durability durability_;
  std::vector<Call> calls_;           // as they were first sent
  std::vector<size_t> acknowledged_;  // of calls_, as they were answered
  std::map<std::string, std::string> uids_;
  // What sessions of the model were at each generation, for clones.
  std::map<std::string, std::map<int64_t, SessionContent>> model_contents_;
  std::vector<std::string> broken_promises_;
  int64_t num_refused_ = 0;
  std::function<void(int64_t)> on_refused_ = [](int64_t) {};
};

}  // namespace normserve
