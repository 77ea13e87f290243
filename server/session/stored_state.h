// A session's state as a store has it: without its vectors in the session's head, whole in a snapshot.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "server/session/session_config.h"
#include "server/session/session_content.h"
#include "server/session/session_errors.h"
#include "server/session/session_state.h"
#include "server/store/state_store.h"

namespace normserve {

class RecordReader;
class RecordWriter;

// Of a version where there are no such vectors.
constexpr int64_t kNoVersion = -1;
// What a record of an older version does not say.
constexpr int64_t kNotRecorded = -2;

// A session but its vectors.
struct SessionHead {
  SessionState state;  // without parameters and running
  absl::Time create_time;
  // Since version 2.
  std::string name;
  std::string uid;
  int64_t num_remembered = kNotRecorded;         // requests so far: the ring holds the last of them
  int64_t shadow_version = kNotRecorded;         // kNoVersion: there are no shadow moments
  int64_t observed_version = kNoVersion;         // since version 3; kNoVersion: there are none
  int64_t num_updates = 0;                       // since version 4; as History has it
  int64_t num_collection_rows = 0;               // since version 5
  int64_t observed_before_version = kNoVersion;  // since version 6; kNoVersion: there are none
};

std::string WriteHead(const SessionHead& head);
// DATA_LOSS (STORED_DATA_LOST), naming `what`: the record is damaged, of a version that is not known, or not that of
// its row.
absl::StatusOr<SessionHead> ReadHead(const StoredPart& what, const StoredHead& row);
// The name in a head's record, whatever its row says; empty: there is none that can be read.
std::string NameInHead(absl::string_view record);

// Adds to `write` what makes `after` of `before`: at most one snapshot more, and one less.
void WriteSnapshots(absl::string_view uid, const Snapshots& before, const Snapshots& after, SessionWrite& write);
// Those of a stored session, whose state is `newest`. A damaged one is lost by itself: the session is whole without it.
Snapshots ReadSnapshots(const StoredPart& session, const StoredSession& stored, const SessionState& newest);

// The configuration as fields of any record.
void WriteConfigFields(const SessionConfig& config, RecordWriter& to);
SessionConfig ReadConfigFields(RecordReader& from);

}  // namespace normserve
