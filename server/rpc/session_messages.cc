#include "server/rpc/session_messages.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/rpc/config_message.h"
#include "server/rpc/stats_messages.h"
#include "server/rpc/timestamp_message.h"
#include "server/session/field_error.h"
#include "server/session/page_token.h"
#include "server/session/session_name.h"

namespace normserve {
namespace {

constexpr int kDefaultPageSize = 100;
constexpr int kMaxPageSize = 1000;

void WriteOpenCollections(const Collections& collections, v1::Session& message) {
  for (const auto& [key, collection] : collections) {
    if (collection->result != nullptr) continue;
    v1::OpenCollection& open =
        key.first == CollectionKind::kMerge ? *message.add_open_merges() : *message.add_open_calibrations();
    open.set_id(key.second);
    open.set_num_parts(static_cast<int64_t>(collection->parts.size()));
    open.set_count(collection->count);
  }
}

}  // namespace

absl::StatusOr<std::optional<Mode>> ReadMode(int mode) {
  switch (mode) {
    case v1::MODE_UNSPECIFIED:
      return std::optional<Mode>();
    case v1::MODE_TRAIN:
      return Mode::kTrain;
    case v1::MODE_EVAL:
      return Mode::kEval;
    case v1::MODE_SHADOW:
      return Mode::kShadow;
    default:
      return FieldError("mode",
                        absl::StrCat("mode is ", mode, ": send MODE_TRAIN (1), MODE_EVAL (2) or MODE_SHADOW (3)"));
  }
}

v1::Mode WriteMode(Mode mode) {
  return mode == Mode::kTrain ? v1::MODE_TRAIN : mode == Mode::kEval ? v1::MODE_EVAL : v1::MODE_SHADOW;
}

absl::StatusOr<bool> ReadView(int view) {
  switch (view) {
    case v1::SESSION_VIEW_UNSPECIFIED:
    case v1::SESSION_VIEW_BASIC:
      return false;
    case v1::SESSION_VIEW_FULL:
      return true;
    default:
      return FieldError("view",
                        absl::StrCat("view is ", view, ": send SESSION_VIEW_BASIC (1) or SESSION_VIEW_FULL (2)"));
  }
}

absl::StatusOr<SessionDraft> ReadDraft(const v1::CreateSessionRequest& request) {
  const auto mode = ReadMode(request.mode());
  if (!mode.ok()) return mode.status();
  SessionDraft draft{.name = request.name(), .request_id = request.request_id(), .mode = mode->value_or(Mode::kTrain)};
  auto config = ReadConfig(request.config());
  if (!config.ok()) return config.status();
  draft.config = *std::move(config);
  const auto durability = ReadDurability(request.config().durability());
  if (!durability.ok()) return durability.status();
  draft.durability = *durability;
  const auto& parameters = request.parameters();
  draft.parameters.weight.assign(parameters.weight().begin(), parameters.weight().end());
  draft.parameters.bias.assign(parameters.bias().begin(), parameters.bias().end());
  if (request.has_statistics()) {
    const auto& statistics = request.statistics();
    NormalizationStatistics& values = draft.statistics.emplace();
    values.mean.assign(statistics.running_mean().begin(), statistics.running_mean().end());
    values.variance.assign(statistics.running_var().begin(), statistics.running_var().end());
    draft.num_batches_tracked = statistics.num_batches_tracked();
  }
  return draft;
}

void WriteDescription(const SessionDescription& description, v1::Session& message) {
  message.set_name(description.name);
  message.set_uid(description.uid);
  WriteConfig(description.config, *message.mutable_config());
  message.set_mode(WriteMode(description.mode));
  message.set_generation(description.generation);
  message.set_num_batches_tracked(description.num_batches_tracked);
  WriteTime(description.create_time, *message.mutable_create_time());
  WriteTime(description.update_time, *message.mutable_update_time());
  message.set_durability(WriteDurability(description.config.durability));
  message.set_num_snapshots(static_cast<int>(description.num_snapshots));
}

void WriteSnapshot(const SnapshotDescription& description, v1::Snapshot& message) {
  message.set_name(description.session);
  message.set_snapshot(description.name);
  message.set_uid(description.uid);
  message.set_generation(description.generation);
  WriteTime(description.create_time, *message.mutable_create_time());
  message.set_size_bytes(description.size_bytes);
  message.set_num_batches_tracked(description.num_batches_tracked);
}

absl::Status WriteSnapshots(const std::vector<std::shared_ptr<Session>>& sessions,
                            const std::vector<SessionContent>& contents, const v1::ListSnapshotsRequest& request,
                            v1::ListSnapshotsReply& reply) {
  if (request.page_size() < 0 || request.page_size() > kMaxPageSize) {
    return FieldError("page_size", absl::StrCat("page_size is ", request.page_size(), ": send 0 up to ", kMaxPageSize));
  }
  const int page_size = request.page_size() == 0 ? kDefaultPageSize : request.page_size();
  // A page of a model ends at a session's snapshot, one of a session at a snapshot. No name has a blank in it.
  const bool is_model = absl::EndsWith(request.name(), "/");
  std::pair<std::string, std::string> last;
  if (!request.page_token().empty()) {
    const auto last_name = ReadPageToken(Listing::kSnapshots, request.name(), request.page_token());
    if (!last_name.ok()) return last_name.status();
    if (is_model) {
      last = absl::StrSplit(*last_name, absl::MaxSplits(' ', 1));
    } else {
      last = {request.name(), *last_name};
    }
  }
  for (size_t i = 0; i < sessions.size(); ++i) {
    const Session& session = *sessions[i];
    if (session.name() < last.first) continue;
    const Snapshots& snapshots = *contents[i].snapshots;
    auto at = session.name() == last.first ? snapshots.upper_bound(last.second) : snapshots.begin();
    for (; at != snapshots.end(); ++at) {
      // A name that is not legal comes of damage: nobody can ask for it.
      if (!CheckSnapshotName("snapshot", at->first).ok()) continue;
      if (reply.snapshots_size() == page_size) {
        const v1::Snapshot& end = reply.snapshots(page_size - 1);
        const std::string last_name = is_model ? absl::StrCat(end.name(), " ", end.snapshot()) : end.snapshot();
        reply.set_next_page_token(MakePageToken(Listing::kSnapshots, request.name(), last_name));
        return absl::OkStatus();
      }
      WriteSnapshot(session.Describe(at->first, at->second), *reply.add_snapshots());
    }
  }
  return absl::OkStatus();
}

void WriteSession(const Session& session, bool with_vectors, v1::Session& message) {
  const SessionContent content = session.Observe();
  const auto& state = content.state;
  WriteDescription(session.Describe(content), message);
  if (content.collections != nullptr) WriteOpenCollections(*content.collections, message);
  if (!with_vectors) return;
  const Channels all{.count = state->parameters->weight.size()};
  if (state->config.affine) {
    WriteVector(state->parameters->weight, all, *message.mutable_parameters()->mutable_weight());
    WriteVector(state->parameters->bias, all, *message.mutable_parameters()->mutable_bias());
  }
  if (state->running != nullptr) WriteRunningStatistics(*state, all, *message.mutable_statistics());
}

}  // namespace normserve
