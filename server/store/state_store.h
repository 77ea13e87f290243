// Where sessions live beyond the process. An interface, so that what keeps them can be exchanged.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace normserve {

// What a change has survived once it is acknowledged.
enum class Durability {
  kNone,    // nothing: it is in memory only, and no store hears of it
  kCommit,  // a crash or kill of the server: it is in the journal
  kFlush,   // power loss: the journal is synced
};

// The vectors of a session. A version is unique in its session and kind, and rises.
enum class VectorKind { kParameters = 1, kRunning = 2, kShadow = 3, kObserved = 4, kObservedBefore = 5 };

struct StoredVector {
  VectorKind kind = VectorKind::kParameters;
  int64_t version = 0;
  std::string data;
};

// A remembered request. Requests go into a ring: one replaces what its slot held before.
struct StoredRequest {
  int64_t slot = 0;
  int64_t sequence = 0;  // rises with every request remembered
  std::string request_id;
  std::string record;
};

struct StoredSnapshot {
  std::string name;
  std::string record;
};

// A point of a session's history, in a slot of its own.
struct StoredPoint {
  int64_t slot = 0;
  std::string record;
};

// A row of what a session gathers: a part, or of part "" what it came to.
struct StoredCollectionRow {
  std::string collection;
  std::string part;
  int64_t size_bytes = 0;  // charged for it
  std::string record;
};

// What is known of a session without its vectors.
struct StoredHead {
  std::string name;
  std::string uid;
  int64_t epoch = 0;     // of this store's ownership; its writes carry it
  int64_t sequence = 0;  // of the newest write
  std::string record;
  int64_t num_snapshots = 0;
  int64_t collection_bytes = 0;  // charged for what it gathers
};

// A session as it is.
struct StoredSession {
  StoredHead head;
  std::vector<StoredVector> current;           // at most one of a kind
  std::vector<StoredSnapshot> snapshots;       // by name
  std::vector<StoredPoint> history;            // by slot
  std::vector<StoredCollectionRow> collected;  // by collection and part
};

// What a session remembers of its requests; much longer than itself.
struct StoredMemory {
  std::vector<StoredVector> kept;       // what they were computed with, beyond the current vectors
  std::vector<StoredRequest> requests;  // by rising sequence
};

// One change of one session.
struct SessionWrite {
  enum class Kind { kCreate, kChange, kDelete };
  Kind kind = Kind::kChange;
  std::string uid;
  std::string name;   // kCreate only
  int64_t epoch = 1;  // kCreate: of the new session
  // kCreate: the first. Else one more than that of the session's write before: a write whose predecessor was refused is
  // refused too.
  int64_t sequence = 0;

  std::string head;                   // the new record; kCreate and kChange
  std::vector<StoredVector> current;  // each replaces the current one of its kind; empty data: there is none any more
  std::vector<StoredVector> kept;     // each is added beside the current ones
  std::vector<std::pair<VectorKind, int64_t>> dropped;  // kept ones that go, by version
  std::optional<StoredRequest> request;
  std::optional<StoredSnapshot> snapshot;        // added; the name is free
  std::string deleted_snapshot;                  // a name; empty: none goes
  std::vector<StoredPoint> history;              // each replaces what its slot held
  std::vector<std::string> dropped_collections;  // whose rows go, before
  std::vector<StoredCollectionRow> collected;    // these are added
};

// Changes that are made together or not at all.
struct StoreWrite {
  std::vector<SessionWrite> sessions;
  std::optional<StoredRequest> server_request;  // of those remembered for the server as a whole
  Durability durability = Durability::kCommit;  // kCommit or kFlush
};

// A store keeps rows of bytes; what they mean is the session layer's business (server/session/records.h).
//
// Who opens a store takes ownership of its sessions: every session gets a higher epoch, and a write with an older one,
// from an owner before, is refused. Thread-safe.
//
// Errors of reading: DATA_LOSS (STORED_DATA_LOST): the rows are damaged; UNAVAILABLE (STORE_REFUSED): they cannot be
// read now; the message names the file and what to do. Errors of writing: UNAVAILABLE (STORE_REFUSED): nothing of the
// write was stored, as far as is known; reads go on, later writes are tried again. FAILED_PRECONDITION (NOT_OWNER): the
// epoch is old.
class StateStore {
 public:
  virtual ~StateStore() = default;

  // Where it keeps them, for messages: the path of a file.
  virtual std::string location() const = 0;

  // All sessions, by name.
  virtual absl::StatusOr<std::vector<StoredHead>> ListSessions() = 0;

  // The requests remembered for the server as a whole, by rising sequence.
  virtual absl::StatusOr<std::vector<StoredRequest>> ListServerRequests() = 0;

  // One session. NOT_FOUND: there is none with this uid.
  virtual absl::StatusOr<StoredSession> Load(absl::string_view uid) = 0;
  virtual absl::StatusOr<StoredMemory> LoadMemory(absl::string_view uid) = 0;

  using Stored = absl::AnyInvocable<void(absl::Status) &&>;

  // Queues a write; never waits for it. `stored` is called once, with OK when the write is as durable as it asks, from
  // a thread of the store's. Writes are made in the order of their calls, and those of one session and durability are
  // answered in that order.
  virtual void Write(StoreWrite write, Stored stored) = 0;

  // Finishes what is queued and refuses what comes later.
  virtual void Close() = 0;
};

}  // namespace normserve
