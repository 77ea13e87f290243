// Opens or replaces the sessions of a checkpoint's layers: all of them or none.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/session/journal_group.h"
#include "server/session/session_registry.h"

namespace normserve {

// What happens to a layer whose session is open already.
enum class ExistingSession { kRefuse, kReplace, kSkip };

// One layer, and the name of its session.
struct ImportedLayer {
  std::string name;
  AffineParameters parameters;  // [C] each; empty where the layer has none
  NormalizationStatistics statistics;
  std::optional<int64_t> num_batches_tracked;  // unset: not known, which counts as 0
};

struct ImportDraft {
  std::string name;        // the model or session that was asked for
  std::string request_id;  // empty: not protected
  ExistingSession existing = ExistingSession::kRefuse;
  SessionConfig config;                  // of sessions that are opened, without num_features, affine and durability
  std::optional<bool> affine;            // unset: whether the layer has parameters
  std::optional<Durability> durability;  // unset: the registry's default
  Mode mode = Mode::kEval;
  // By which variance the layers' statistics were kept; unset: that of their sessions.
  std::optional<RunningVariance> kept_variance;
  int64_t values_per_channel = 0;  // of every batch that they were kept from; 0: not known
  // Whether a session that is to be replaced has the configuration that was asked for; empty: any.
  std::function<absl::Status(const std::string& name, const SessionConfig& existing)> check_existing;
  std::vector<ImportedLayer> layers;  // at least one; by name, each once
};

// Of an import of more layers, a repeat is recognised, but answers with the sessions as they are then.
constexpr size_t kMaxRememberedParts = 512;

// A layer and what was done with it.
struct ImportedSession {
  std::string name;
  std::string uid;
  int64_t generation = 0;
  int64_t num_features = 0;
  int64_t num_batches_tracked = 0;
  ImportAction action = ImportAction::kCreated;
};

// One import. Held by itself until it has answered.
class ModelImport : public std::enable_shared_from_this<ModelImport> {
 public:
  using Answered = SessionRegistry::Answered<std::vector<ImportedSession>>;

  // Makes all sessions of `draft` in one write of the store, and calls `answered` once, as SessionRegistry's changes
  // do: with one entry a layer, in their order. `registry` outlives the call.
  //
  // Errors are those of SessionRegistry::Create, naming the layer, and: ALREADY_EXISTS (SESSION_EXISTS), with kRefuse.
  // With kReplace, of a session that is there: INVALID_ARGUMENT: another number of channels; FAILED_PRECONDITION
  // (NOT_AFFINE, NOT_TRACKED, CONVENTION_MISMATCH); DATA_LOSS.
  static void Start(SessionRegistry& registry, ImportDraft draft, Answered answered);

 private:
  ModelImport(SessionRegistry& registry, ImportDraft draft, Answered answered)
      : registry_(registry), draft_(std::move(draft)), answered_(std::move(answered)) {}

  using Pending = SessionRegistry::Pending;

  // What needs no other session: errors, and the fingerprint.
  absl::Status Check();
  void Run() ABSL_LOCKS_EXCLUDED(registry_.mutex_);
  // What is known of the request, or what to wait for: a repeat, or a session that is being opened.
  SessionRegistry::Known Lookup() const ABSL_SHARED_LOCKS_REQUIRED(registry_.mutex_);
  // Tells layers whose sessions are there from those to be opened, for which it makes the first state.
  absl::Status FindExisting() ABSL_LOCKS_EXCLUDED(registry_.mutex_);
  // The layer's statistics as a session of `config` keeps them.
  absl::StatusOr<NormalizationStatistics> StatisticsFor(const ImportedLayer& layer, const SessionConfig& config) const;
  // Takes names, request and bytes for what is to be opened; nothing where it fails, or where FindExisting is outdated.
  absl::Status TakeNames(bool* is_outdated) ABSL_EXCLUSIVE_LOCKS_REQUIRED(registry_.mutex_);
  void Store();
  absl::StatusOr<SessionChange> Replace(const SessionJournal& journal, const SessionContent& newest) const;
  // Adds to the write of what is replaced all else of the import.
  void Complete(const std::vector<Answer>& replaced, StoreWrite& write);
  void Finish(const absl::Status& status) ABSL_LOCKS_EXCLUDED(registry_.mutex_);
  // What is kept of an answer.
  static ImportAnswer Remembered(const ImportAnswer& answer);
  std::vector<ImportedSession> Describe(const ImportAnswer& answer) const;
  void AnswerAgain(absl::StatusOr<Answer> known) ABSL_LOCKS_EXCLUDED(registry_.mutex_);

  SessionRegistry& registry_;
  ImportDraft draft_;
  Fingerprint fingerprint_;
  Answered answered_;

  // Of the layers, by their order.
  struct Part {
    std::shared_ptr<const SessionState> first;  // of one to be opened
    std::shared_ptr<Session> session;
    ImportAction action = ImportAction::kCreated;
  };
  std::vector<Part> parts_;
  std::shared_ptr<Pending> pending_;
  int64_t request_sequence_ = 0;
  ImportAnswer answer_;
};

}  // namespace normserve
