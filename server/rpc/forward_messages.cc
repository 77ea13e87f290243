#include "server/rpc/forward_messages.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "normserve/v1/batch_norm_service.pb.h"
#include "server/rpc/config_message.h"
#include "server/rpc/kept_fields.h"
#include "server/rpc/session_messages.h"
#include "server/rpc/split_message.h"
#include "server/rpc/stats_messages.h"
#include "server/rpc/tensor_message.h"
#include "server/session/field_error.h"

namespace normserve {
namespace {

absl::StatusOr<std::optional<Update>> ReadUpdate(int update) {
  switch (update) {
    case v1::UPDATE_UNSPECIFIED:
      return std::optional<Update>();
    case v1::UPDATE_NONE:
      return Update::kNone;
    case v1::UPDATE_RUNNING:
      return Update::kRunning;
    case v1::UPDATE_SHADOW:
      return Update::kShadow;
    default:
      return FieldError("update", absl::StrCat("update is ", update,
                                               ": send UPDATE_NONE (1), UPDATE_RUNNING (2) or UPDATE_SHADOW (3)"));
  }
}

v1::Update WriteUpdate(Update update) {
  return update == Update::kNone      ? v1::UPDATE_NONE
         : update == Update::kRunning ? v1::UPDATE_RUNNING
                                      : v1::UPDATE_SHADOW;
}

void ReadNormalizeWith(const v1::ForwardRequest& header, ForwardRequest& request) {
  switch (header.normalize_with_case()) {
    case v1::ForwardRequest::kBatch:
      request.normalize_with = NormalizedWith::kBatch;
      break;
    case v1::ForwardRequest::kRunning:
      request.normalize_with = NormalizedWith::kRunning;
      break;
    case v1::ForwardRequest::kGiven:
      request.normalize_with = NormalizedWith::kGiven;
      request.given.count = header.given().count();
      request.given.mean.assign(header.given().mean().begin(), header.given().mean().end());
      request.given.m2.assign(header.given().m2().begin(), header.given().m2().end());
      break;
    case v1::ForwardRequest::kSnapshot:
      request.normalize_with = NormalizedWith::kSnapshot;
      request.snapshot = header.snapshot();
      break;
    case v1::ForwardRequest::kBlend:
      request.normalize_with = NormalizedWith::kBlend;
      request.snapshot = header.blend().snapshot();
      if (header.blend().has_batch_weight()) request.batch_weight = header.blend().batch_weight();
      break;
    case v1::ForwardRequest::NORMALIZE_WITH_NOT_SET:
      break;
  }
}

v1::NormalizedWith WriteNormalizedWith(NormalizedWith normalized_with) {
  switch (normalized_with) {
    case NormalizedWith::kBatch:
      return v1::NORMALIZED_WITH_BATCH;
    case NormalizedWith::kRunning:
      return v1::NORMALIZED_WITH_RUNNING;
    case NormalizedWith::kGiven:
      return v1::NORMALIZED_WITH_GIVEN;
    case NormalizedWith::kSnapshot:
      return v1::NORMALIZED_WITH_SNAPSHOT;
    case NormalizedWith::kBlend:
      return v1::NORMALIZED_WITH_BLEND;
  }
  return v1::NORMALIZED_WITH_UNSPECIFIED;
}

}  // namespace

absl::StatusOr<ForwardRequest> ReadForwardRequest(const grpc::ByteBuffer& message) {
  auto slices = std::make_shared<std::vector<grpc::Slice>>();
  if (!message.Dump(slices.get()).ok()) return FieldError("message", "the message cannot be read: send it again");
  auto split = SplitForwardRequest(*slices);
  if (!split.ok()) return split.status();
  v1::ForwardRequest header;
  if (!header.ParseFromString(split->header)) {
    return FieldError("message", "the message is no serialised normserve.v1.ForwardRequest");
  }
  if (absl::Status status = CheckKeptFields(header); !status.ok()) return status;
  ForwardRequest request{.name = header.name(),
                         .guard = ReadGuard(header),
                         .return_batch_moments = header.return_batch_moments(),
                         .return_saved_forward = header.return_saved_forward(),
                         .return_normalization = header.return_normalization()};
  auto mode = ReadMode(header.mode());
  if (!mode.ok()) return mode.status();
  request.mode = *mode;
  auto update = ReadUpdate(header.update());
  if (!update.ok()) return update.status();
  request.update = *update;
  ReadNormalizeWith(header, request);
  auto input = ReadTensor("input", header.input(), std::move(split->values), std::move(slices));
  if (!input.ok()) return input.status();
  request.input = *std::move(input);
  return request;
}

grpc::ByteBuffer WriteForwardReply(const ForwardReply& reply, const std::string& saved_forward,
                                   const CallGate::Pass& bytes) {
  v1::ForwardReply message;
  message.set_generation(reply.generation);
  message.set_snapshot_generation(reply.snapshot_generation);
  message.set_num_batches_tracked(reply.num_batches_tracked);
  message.set_uid(reply.uid);
  message.set_normalized_with(WriteNormalizedWith(reply.normalized_with));
  message.set_update(WriteUpdate(reply.update));
  message.set_durability(WriteDurability(reply.durability));
  if (reply.batch_moments.has_value()) {
    WriteMoments(*reply.batch_moments, {.count = reply.batch_moments->mean.size()}, *message.mutable_batch_moments());
  }
  if (reply.saved.has_value() && reply.return_normalization) {
    const SavedForward& saved = *reply.saved;
    v1::Normalization* normalization = message.mutable_normalization();
    normalization->mutable_mean()->Add(saved.normalization->mean.begin(), saved.normalization->mean.end());
    normalization->mutable_var()->Add(saved.normalization->variance.begin(), saved.normalization->variance.end());
    normalization->mutable_weight()->Add(saved.parameters->weight.begin(), saved.parameters->weight.end());
    normalization->set_from_batch(saved.from_batch);
  }
  message.set_saved_forward(saved_forward);
  return WriteWithTensor(
      message.SerializeAsString(), v1::ForwardReply::kOutputFieldNumber,
      {.type = reply.type, .layout = reply.layout, .dimensions = reply.dimensions, .values = reply.output}, bytes);
}

}  // namespace normserve
