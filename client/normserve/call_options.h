// How calls are made: time, repetition, and the guards of a change.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <variant>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "normserve/session.h"
#include "normserve/statistics.h"
#include "normserve/stats_view.h"
#include "normserve/tensor.h"

namespace normserve::client {

// When a failed call is made again. Only calls that cannot change anything twice are repeated: reads, and changes that
// carry a request_id. Only UNAVAILABLE, CANCELLED (no caller can cancel: the server did, as it shut down), and
// RESOURCE_EXHAUSTED in which the server asks for it, are repeated.
struct RetryPolicy {
  int max_attempts = 100;  // the first one included; 1: never repeat. The call's deadline ends it earlier
  absl::Duration initial_backoff = absl::Milliseconds(100);
  absl::Duration max_backoff = absl::Seconds(5);
  double multiplier = 2.0;  // from one wait to the next; each wait is drawn from [1/2, 1] of that
};

// The time as the library sees it; replaced in tests.
struct Clock {
  std::function<absl::Time()> now = absl::Now;
  std::function<void(absl::Duration)> sleep = absl::SleepFor;
};

struct ClientOptions {
  absl::Duration timeout = absl::Seconds(30);  // of a call with all its repetitions, unless the call says otherwise
  RetryPolicy retry = {};
  Clock clock = {};
};

// Options of one call.
struct CallOptions {
  // For the call and its repetitions together. Unset: ClientOptions::timeout.
  std::optional<absl::Duration> timeout = {};

  // Makes a change happen at most once, however often it is sent: printable ASCII, 128 characters at most. Unset: a
  // random UUID, the same for every repetition. Empty: none, and then the change is never repeated. Reads ignore it.
  std::optional<std::string> request_id = {};

  // The change is made only at this generation of the session, else ABORTED (GENERATION_MISMATCH). Not for creation.
  std::optional<int64_t> expected_generation = {};

  // The change is made only if the session has this uid, else ABORTED (UID_MISMATCH). Not for creation.
  std::string expected_uid = {};
};

// Normalise with the batch's own statistics.
struct UseBatch {};
// Normalise with the running statistics.
struct UseRunning {};

// Normalise with the running statistics of a snapshot of this name.
struct UseSnapshot {
  std::string name;
};
// Normalise between a snapshot's running statistics and the batch's own, each mean and variance weighed: (1 -
// batch_weight) * the snapshot's + batch_weight * the batch's. There is no gradient through it.
struct UseBlend {
  std::string snapshot;
  std::optional<double> batch_weight = {};  // 0 to 1; unset: 0.1
};

// What a Forward normalises with; monostate: what the mode says (TRAIN: batch, EVAL and SHADOW: running). Moments:
// their mean and biased variance, m2 / count (for a mean and a variance from elsewhere: count 1 and m2 the variance).
using NormalizeWith = std::variant<std::monostate, UseBatch, UseRunning, Moments, UseSnapshot, UseBlend>;

// What a Forward does to the session.
enum class Update {
  kUnspecified = 0,  // what the mode says (TRAIN: kRunning, EVAL: kNone, SHADOW: kShadow)
  kNone = 1,         // nothing
  kRunning = 2,      // fold the batch into the running statistics and count it
  kShadow = 3,       // merge the batch's moments into the shadow moments, beside the state
};

// Options of one Forward. None of them touches the session's mode.
struct ForwardOptions {
  Mode mode = Mode::kUnspecified;        // for this call alone
  NormalizeWith normalize_with = {};     // whatever the mode says
  Update update = Update::kUnspecified;  // whatever the mode says
  bool return_batch_moments = false;     // whether ForwardResult::batch_moments is set
  bool save_for_backward = false;        // whether ForwardResult::saved is set
  CallOptions call = {};
};

// Options of one Backward.
struct BackwardOptions {
  bool stop_at_sums = false;                         // end with the sums: no gradient of the input
  std::optional<GradientSums> start_from_sums = {};  // in place of this batch's
  bool release = false;                              // the server need not keep the input any longer
  CallOptions call = {};
};

// Options of one Stats.
struct StatsOptions {
  int64_t first_channel = 0;
  int64_t num_channels = 0;                           // 0: all from first_channel on
  bool return_last_batch = false;                     // whether SessionStats::last_batch is set
  bool return_shadow = false;                         // whether SessionStats::shadow is set
  StatsView view = StatsView::kUnspecified;           // how much is returned; unset: a number a channel
  std::optional<ComparisonSource> compare_with = {};  // what the running statistics are compared with; nothing: no data
  std::optional<HistoryRange> history = {};           // which points SessionStats::history has; nothing: none
  CallOptions call = {};
};

// Options of one Diagnose.
struct DiagnoseOptions {
  // Of one batch as the layer is trained with, by BatchNorm::Diagnose; unset: the newest that the server has seen.
  std::optional<Moments> moments = {};
  // The same by layer, the session's name without the prefix, by Model::Diagnose; empty: what the server has seen.
  std::map<std::string, Moments> layers = {};
  // What each session has observed is the evidence, in place of moments; what it had observed before the last reset
  // tells a shift of the data from momentum's lag, where batches folded in before cannot.
  bool observed = false;
  std::optional<TensorView> batch = {};  // a batch of BatchNorm::Diagnose in their place; valid during the call
  // N of [N, C, *]; 0: as the moments' num_samples, which batches know, and what was observed if all of it told; where
  // that is 0 too all values count as independent.
  int64_t samples_per_batch = 0;
  bool return_channels = false;  // whether Diagnosis::channel_gap_rms is set
  CallOptions call = {};
};

// Options of one ListSessions.
struct ListSessionsOptions {
  std::string prefix = {};  // only sessions under it, which is whole segments; empty: all
  Labels labels = {};       // only sessions that have all of these; empty: all
  CallOptions call = {};
};

}  // namespace normserve::client
