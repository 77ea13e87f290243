#include "server/rpc/import_call.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "server/rpc/checkpoint_messages.h"
#include "server/rpc/grpc_status.h"
#include "server/rpc/message_call.h"
#include "server/rpc/unary_call.h"
#include "server/session/field_error.h"

namespace normserve {
namespace {

// Bytes are counted in steps, so that a file in many small pieces does not make many counts.
constexpr int64_t kCountedStep = int64_t{1} << 20;
// What becomes of one byte of a half-precision tensor on its way: values, a draft and a state in double.
constexpr int64_t kDraftFactor = 12;

}  // namespace

void ImportCall::Start() {
  auto pass = gate_.Enter();
  if (!pass.ok()) return Answer(pass.status());
  pass_ = *std::move(pass);
  StartRead(&message_);
}

void ImportCall::OnReadDone(bool ok) {
  absl::Status status;
  try {
    status = ok ? Take() : Import();
  } catch (const std::exception& exception) {
    status = OutOfMemory(exception);
  }
  if (!status.ok()) return Answer(status);
  if (ok) StartRead(&message_);
}

absl::Status ImportCall::Take() {
  v1::ImportStateRequest request;
  request_bytes_ += static_cast<int64_t>(message_.Length());
  if (absl::Status status = ParseMessage(message_, request); !status.ok()) return status;
  message_.Clear();
  switch (request.part_case()) {
    case v1::ImportStateRequest::kBegin:
      return Begin(request.begin());
    case v1::ImportStateRequest::kData: {
      if (!reader_.has_value()) return FieldError("begin", "data came before begin: send begin first, then the file");
      absl::Status status = reader_->Feed(request.data());
      return status.ok() ? Count(0) : status;
    }
    case v1::ImportStateRequest::PART_NOT_SET:
      break;
  }
  return FieldError("part", "a message has neither begin nor data: send begin first, then the file as data");
}

absl::Status ImportCall::Begin(const v1::ImportBegin& begin) {
  if (draft_.has_value()) return FieldError("begin", "begin came twice: send it once, first");
  session_ = begin.name();
  if (absl::Status status = CheckSessionMetadata(*context_, begin.name()); !status.ok()) return status;
  auto draft = ReadImportBegin(begin);
  if (!draft.ok()) return draft.status();
  draft_ = *std::move(draft);
  reader_.emplace(begin.prefix());
  return absl::OkStatus();
}

absl::Status ImportCall::Count(int64_t more_bytes) {
  const int64_t missing = reader_->held_bytes() + more_bytes - counted_bytes_;
  if (missing <= 0) return absl::OkStatus();
  auto pass = gate_.TakeBytes(std::max(missing, kCountedStep));
  if (!pass.ok()) return pass.status();
  counted_bytes_ += std::max(missing, kCountedStep);
  bytes_.push_back(*std::move(pass));
  return absl::OkStatus();
}

absl::Status ImportCall::Import() {
  if (context_->IsCancelled()) return absl::CancelledError("the caller has gone away before the file was whole");
  if (!reader_.has_value()) return FieldError("begin", "there is no begin: send it first, then the file as data");
  if (absl::Status status = Count(kDraftFactor * reader_->held_bytes()); !status.ok()) return status;
  auto checkpoint = reader_->Finish();
  if (!checkpoint.ok()) return checkpoint.status();
  reader_.reset();
  read_ = {.skipped = std::move(checkpoint->skipped),
           .num_skipped = checkpoint->num_skipped,
           .largest_parameter_rounding = checkpoint->largest_parameter_rounding};
  if (absl::Status status = AddLayers(*std::move(checkpoint), *draft_); !status.ok()) return status;
  ModelImport::Start(registry_, *std::move(draft_), [this](absl::StatusOr<std::vector<ImportedSession>> imported) {
    absl::Status status = imported.status();
    if (status.ok()) {
      v1::ImportStateReply reply;
      WriteImported(*imported, read_, reply);
      status = SerialiseMessage(reply, *reply_);
    }
    Answer(status);
  });
  return absl::OkStatus();
}

void ImportCall::Answer(const absl::Status& status) {
  // Memory may run out after the layers were handed on.
  if (is_answered_.exchange(true)) return;
  ReportCall(gate_.observer(),
             {.method = "ImportState",
              .session = session_,
              .peer = context_->peer(),
              .start = start_,
              .request_bytes = request_bytes_,
              .reply_bytes = reply_->Valid() ? static_cast<int64_t>(reply_->Length()) : 0},
             status);
  Finish(ToGrpcStatus(status));
}

}  // namespace normserve
