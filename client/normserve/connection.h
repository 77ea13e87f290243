// The interface between the library's calls and the network: implement it, or use MockConnection, to test a program
// without a server.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "normserve/call_options.h"
#include "normserve/checkpoint.h"
#include "normserve/diagnosis.h"
#include "normserve/population.h"
#include "normserve/server_info.h"
#include "normserve/session.h"
#include "normserve/statistics.h"
#include "normserve/stats_view.h"
#include "normserve/tensor.h"

namespace normserve::client {

// What guards a change; see CallOptions. An empty request_id means none.
struct ChangeGuards {
  std::string request_id;
  std::optional<int64_t> expected_generation;
  std::string expected_uid;
};

struct CreateSessionRequest {
  std::string name = {};  // empty: the server makes one
  SessionConfig config = {};
  Mode mode = Mode::kUnspecified;  // unset: kTrain
  Parameters parameters = {};
  std::optional<RunningStatistics> statistics = {};  // unset: mean 0, variance 1, no batches
  std::string request_id = {};
};

struct ListSessionsRequest {
  std::string prefix;  // whole segments; empty: all
  int32_t page_size = 0;
  std::string page_token;
  Labels label_filter;  // all of these; empty: all sessions
};

struct ListSessionsReply {
  std::vector<Session> sessions;  // in the order of their names
  std::string next_page_token;    // empty: this was the last page
};

struct CloneSessionRequest {
  std::string name;
  std::string clone_name;  // empty: the server makes one
  ChangeGuards guards;
};

struct SetModeRequest {
  std::string name;
  Mode mode = Mode::kUnspecified;
  ChangeGuards guards;
};

struct SetParametersRequest {
  std::string name;
  Parameters parameters;
  ChangeGuards guards;
};

struct DeleteSessionRequest {
  std::string name;
  ChangeGuards guards;
};

struct SnapshotStateRequest {
  std::string name;
  std::string snapshot;
  ChangeGuards guards;
};

struct RestoreStateRequest {
  std::string name;
  std::string snapshot;
  ChangeGuards guards;
};

struct ListSnapshotsRequest {
  std::string name;
  int32_t page_size = 0;
  std::string page_token;
};

struct ListSnapshotsReply {
  std::vector<Snapshot> snapshots;  // in the order of their names
  std::string next_page_token;      // empty: this was the last page
};

struct DeleteSnapshotRequest {
  std::string name;
  std::string snapshot;
  ChangeGuards guards;
};

struct ForwardRequest {
  std::string name;
  Mode mode = Mode::kUnspecified;
  NormalizeWith normalize_with;
  Update update = Update::kUnspecified;
  bool return_batch_moments = false;
  bool save_for_backward = false;
  ChangeGuards guards;
  TensorView input;  // valid during the call
};

// What a Forward normalised with.
enum class NormalizedWith {
  kUnspecified = 0,  // something this library has no name for
  kBatch = 1,
  kRunning = 2,
  kGiven = 3,
  kSnapshot = 4,
  kBlend = 5,
};

// What a Forward normalised with, as Backward needs it.
struct Normalization {
  std::vector<double> mean;   // [C]
  std::vector<double> var;    // [C], biased, without epsilon
  std::vector<float> weight;  // [C], gamma; empty: 1
  bool from_batch = false;    // whether mean and var are the batch's own
};

// One Forward, to be given to Backward: a token for the input that the server keeps, and what it takes to do without.
struct SavedForward {
  std::string token;  // empty: the server did not keep the input
  Normalization normalization;
};

struct ForwardResult {
  Tensor output;                    // of the input's shape
  int64_t generation = 0;           // after this call; one more than before if it updated
  int64_t snapshot_generation = 0;  // of the state that the call computed with
  int64_t num_batches_tracked = 0;  // after this call
  std::string uid;                  // of the session
  NormalizedWith normalized_with = NormalizedWith::kUnspecified;
  Update update = Update::kUnspecified;  // what the call did to the session
  std::optional<Moments> batch_moments;  // if they were asked for
  std::optional<SavedForward> saved;     // if it was asked for
  std::optional<Durability> durability;  // what `generation` has survived
};

struct BackwardRequest {
  std::string name;
  std::string token;  // of the kept input; empty: `normalization` and `input`
  Normalization normalization;
  TensorView input;  // valid during the call
  bool stop_at_sums = false;
  std::optional<GradientSums> start_from_sums;
  bool release = false;
  TensorView grad_output;  // valid during the call
  std::optional<int64_t> expected_generation;
  std::string expected_uid;
};

struct BackwardResult {
  Tensor grad_input;                          // of the input's shape and layout; empty with stop_at_sums
  std::vector<float> grad_weight, grad_bias;  // [C]; empty if the session is not affine
  GradientSums sums;
  bool resent = false;  // whether the input had to be sent again
};

struct GetStatsRequest {
  std::string name;  // of a session, or of a model, ending in '/'
  int64_t first_channel = 0;
  int64_t num_channels = 0;  // 0: all from first_channel on
  bool return_last_batch = false;
  bool return_shadow = false;
  StatsView view = StatsView::kUnspecified;
  std::optional<ComparisonSource> compare_with = {};  // nothing: no comparison
  std::optional<HistoryRange> history = {};           // nothing: no history
};

struct WatchStatsRequest {
  GetStatsRequest stats;
  absl::Duration interval = absl::ZeroDuration();  // zero: on change
  std::optional<int64_t> after_generation = {};    // of a single session
  std::optional<absl::Duration> patience = {};     // how long the server may be away; not sent
};

struct DiagnoseRequest {
  std::string name;                       // of a session, or of a model, ending in '/'
  std::optional<Moments> moments;         // of a single session
  std::map<std::string, Moments> layers;  // of a model
  bool observed = false;                  // what each session has observed, in their place
  std::optional<TensorView> batch;        // of a single session; valid during the call
  int64_t samples_per_batch = 0;
  bool return_channels = false;
};

struct ObserveRequest {
  std::string name;  // of a session, or of a model, ending in '/'; as below
  Data data;
  std::string part_id;
  bool dry_run = false;
  bool reset = false;
  ChangeGuards guards;
};

struct GetMomentsRequest {
  std::string name;
  MomentsSource source = MomentsSource::kObserved;
  int64_t first_channel = 0;
  int64_t num_channels = 0;  // 0: all from first_channel on
};

struct MergeMomentsRequest {
  std::string name;
  std::string merge_id;
  std::vector<MomentsPart> parts;
  MergePolicy policy = MergePolicy::kExact;
  bool commit = false;
  bool drop = false;
  ChangeGuards guards;
};

struct CalibrateRequest {
  std::string name;
  std::string calibration_id;
  Data data;
  std::string part_id;
  Estimator estimator = Estimator::kPooled;
  bool commit = false;
  std::string to_snapshot;
  bool drop = false;
  ChangeGuards guards;
};

struct SessionStats {
  std::string name;
  std::string uid;
  int64_t generation = 0;
  Mode mode = Mode::kUnspecified;
  RunningStatistics statistics;  // of the channels asked for; of a summary the batches alone
  int64_t first_channel = 0;     // the first one in `statistics`
  // Of the same channels, if they were asked for; count 0: no batch so far.
  std::optional<Moments> last_batch;  // of the newest batch that updated the running statistics
  std::optional<Moments> shadow;      // of all that updated the shadow moments since SHADOW began
  // What is the matter with channels, such as "DEAD" (normserve.v1.FlagReason without its prefix), and which have it.
  std::map<std::string, std::vector<int64_t>> flags = {};
  std::optional<Comparison> comparison = {};  // of the same channels, with compare_with
  std::optional<StatsSummary> summary = {};   // with StatsView::kSummary or compare_with
  std::vector<HistoryPoint> history = {};     // what was seen over time, oldest first, if it was asked for
};

// What changed since the update before: the session that is watched, or those of the model that changed or were opened.
struct StatsUpdate {
  std::vector<SessionStats> sessions;
  std::vector<std::string> deleted_sessions;  // of a model: those that are gone
  bool is_complete = false;                   // of a model: what is not in `sessions` is gone
};

// One WatchStats call. One thread reads; Cancel may be called from any.
class StatsStream {
 public:
  virtual ~StatsStream() = default;

  // Waits for the next message; the status that the call ended with.
  virtual absl::StatusOr<StatsUpdate> Read() = 0;
  // Ends the call.
  virtual void Cancel() = 0;
};

struct ImportStateRequest {
  std::string name;         // of a model, ending in '/', or of a session
  std::string path;         // of a safetensors file; empty: `bytes`
  absl::string_view bytes;  // of one; valid during the call
  ImportOptions options;    // without `call`
  std::string request_id;
};

struct ExportStateRequest {
  std::string name;       // of a session, or of a model, ending in '/'
  ExportOptions options;  // without `call`
};

// One attempt of every call. Implementations are thread-safe, never repeat a call of their own accord, and give up at
// `deadline` with DEADLINE_EXCEEDED (absl::InfiniteFuture(): never). Errors are statuses as the server sent them, with
// its ErrorInfo (error_info.h).
class Connection {
 public:
  virtual ~Connection() = default;

  virtual absl::StatusOr<Session> CreateSession(const CreateSessionRequest& request, absl::Time deadline) = 0;
  // With `full`, parameters and statistics too.
  virtual absl::StatusOr<Session> GetSession(const std::string& name, bool full, absl::Time deadline) = 0;
  virtual absl::StatusOr<ListSessionsReply> ListSessions(const ListSessionsRequest& request, absl::Time deadline) = 0;
  virtual absl::StatusOr<Session> CloneSession(const CloneSessionRequest& request, absl::Time deadline) = 0;
  virtual absl::StatusOr<std::vector<Session>> SetMode(const SetModeRequest& request, absl::Time deadline) = 0;
  virtual absl::StatusOr<Session> SetParameters(const SetParametersRequest& request, absl::Time deadline) = 0;
  virtual absl::StatusOr<std::vector<DeletedSession>> DeleteSession(const DeleteSessionRequest& request,
                                                                    absl::Time deadline) = 0;
  virtual absl::StatusOr<std::vector<Snapshot>> SnapshotState(const SnapshotStateRequest& request,
                                                              absl::Time deadline) = 0;
  virtual absl::StatusOr<std::vector<Session>> RestoreState(const RestoreStateRequest& request,
                                                            absl::Time deadline) = 0;
  virtual absl::StatusOr<ListSnapshotsReply> ListSnapshots(const ListSnapshotsRequest& request,
                                                           absl::Time deadline) = 0;
  virtual absl::Status DeleteSnapshot(const DeleteSnapshotRequest& request, absl::Time deadline) = 0;
  virtual absl::StatusOr<ForwardResult> Forward(const ForwardRequest& request, absl::Time deadline) = 0;
  virtual absl::StatusOr<BackwardResult> Backward(const BackwardRequest& request, absl::Time deadline) = 0;
  virtual absl::StatusOr<std::vector<SessionStats>> GetStats(const GetStatsRequest& request, absl::Time deadline) = 0;
  // What is wrong shows in the first Read. Never null.
  virtual std::shared_ptr<StatsStream> WatchStats(const WatchStatsRequest& request) = 0;
  virtual absl::StatusOr<std::vector<Diagnosis>> Diagnose(const DiagnoseRequest& request, absl::Time deadline) = 0;
  virtual absl::StatusOr<std::vector<Observed>> Observe(const ObserveRequest& request, absl::Time deadline) = 0;
  virtual absl::StatusOr<std::vector<SessionMoments>> GetMoments(const GetMomentsRequest& request,
                                                                 absl::Time deadline) = 0;
  virtual absl::StatusOr<std::vector<Merged>> MergeMoments(const MergeMomentsRequest& request, absl::Time deadline) = 0;
  virtual absl::StatusOr<std::vector<Calibrated>> Calibrate(const CalibrateRequest& request, absl::Time deadline) = 0;
  // Reads the file from its beginning.
  virtual absl::StatusOr<ImportResult> ImportState(const ImportStateRequest& request, absl::Time deadline) = 0;
  virtual absl::StatusOr<Export> ExportState(const ExportStateRequest& request, absl::Time deadline) = 0;
  virtual absl::StatusOr<ServerInfo> GetServerInfo(absl::Time deadline) = 0;
  // grpc.health.v1 Check of `service`; empty: the whole server.
  virtual absl::StatusOr<Health> CheckHealth(const std::string& service, absl::Time deadline) = 0;
};

}  // namespace normserve::client
