// The methods about populations: moments in and out of sessions and models.
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/rpc/batch_norm_service.h"
#include "server/rpc/diagnose_messages.h"
#include "server/rpc/population_messages.h"
#include "server/rpc/stats_messages.h"
#include "server/session/batch_moments.h"
#include "server/session/field_error.h"

namespace normserve {

using Reactor = BatchNormServiceImpl::Reactor;

namespace {

// The moments of `message`'s batch, of the single session that it names, become what `request` is given; then calls
// `next`, on a thread of the engine's. `message` outlives that.
template <typename Message, typename Request, typename Next>
void TakeBatch(Engine& engine, const std::vector<std::shared_ptr<Session>>& sessions, const Message& message,
               Request request, Next next) {
  if (absl::EndsWith(message.name(), "/")) {
    return std::move(next)(FieldError("batch", absl::StrCat("a batch is of one layer, and \"", message.name(),
                                                            "\" names a model: send layers, or name a session")));
  }
  auto batch = ReadHeldTensor("batch", message.batch());
  if (!batch.ok()) return std::move(next)(batch.status());
  TakeMoments(
      engine, sessions[0], *std::move(batch),
      [request = std::move(request), next = std::move(next)](absl::StatusOr<std::optional<Moments>> moments) mutable {
        if (!moments.ok()) return std::move(next)(moments.status());
        request.TakeBatch(*std::move(moments));
        std::move(next)(std::move(request));
      });
}

}  // namespace

Reactor* BatchNormServiceImpl::Observe(Context* context, const grpc::ByteBuffer* request_bytes,
                                       grpc::ByteBuffer* reply_bytes) {
  return AnswerChange<v1::ObserveRequest, v1::ObserveReply>(
      context, "Observe", *gate_, *request_bytes, *reply_bytes,
      [this](const auto& message, auto& reply, MessageDone done) {
        auto request = ReadObserveRequest(message);
        if (!request.ok()) return std::move(done)(request.status());
        auto sessions = registry_.FindAll(message.name());
        if (!sessions.ok()) return std::move(done)(sessions.status());
        auto observe = [this, sessions = *sessions, &reply,
                        done = std::move(done)](absl::StatusOr<ObserveRequest> asked) mutable {
          if (!asked.ok()) return std::move(done)(asked.status());
          normserve::Observe(sessions, registry_.ObserveAll(sessions), *std::move(asked),
                             WriteEachAndEnd(std::move(done), [&reply](const ObservedSession& observed) {
                               WriteObserved(observed, *reply.add_sessions());
                             }));
        };
        if (!message.has_batch()) return std::move(observe)(*std::move(request));
        TakeBatch(engine_, *sessions, message, *std::move(request), std::move(observe));
      });
}

Reactor* BatchNormServiceImpl::MergeMoments(Context* context, const grpc::ByteBuffer* request_bytes,
                                            grpc::ByteBuffer* reply_bytes) {
  return AnswerChange<v1::MergeMomentsRequest, v1::MergeMomentsReply>(
      context, "MergeMoments", *gate_, *request_bytes, *reply_bytes,
      [this](const auto& message, auto& reply, MessageDone done) {
        auto request = ReadMergeRequest(message);
        if (!request.ok()) return std::move(done)(request.status());
        const auto sessions = registry_.FindAll(message.name());
        if (!sessions.ok()) return std::move(done)(sessions.status());
        Gather(*sessions, registry_.ObserveAll(*sessions), registry_.limits().collections, *std::move(request),
               WriteEachAndEnd(std::move(done), [&reply](const GatheredSession& gathered) {
                 WriteMerged(gathered, *reply.add_sessions());
               }));
      });
}

Reactor* BatchNormServiceImpl::Calibrate(Context* context, const grpc::ByteBuffer* request_bytes,
                                         grpc::ByteBuffer* reply_bytes) {
  return AnswerChange<v1::CalibrateRequest, v1::CalibrateReply>(
      context, "Calibrate", *gate_, *request_bytes, *reply_bytes,
      [this](const auto& message, auto& reply, MessageDone done) {
        auto request = ReadCalibrateRequest(message);
        if (!request.ok()) return std::move(done)(request.status());
        const auto sessions = registry_.FindAll(message.name());
        if (!sessions.ok()) return std::move(done)(sessions.status());
        auto gather = [this, sessions = *sessions, &reply,
                       done = std::move(done)](absl::StatusOr<GatherRequest> asked) mutable {
          if (!asked.ok()) return std::move(done)(asked.status());
          Gather(sessions, registry_.ObserveAll(sessions), registry_.limits().collections, *std::move(asked),
                 WriteEachAndEnd(std::move(done), [&reply](const GatheredSession& gathered) {
                   WriteCalibrated(gathered, *reply.add_sessions());
                 }));
        };
        if (!message.has_batch()) return std::move(gather)(*std::move(request));
        TakeBatch(engine_, *sessions, message, *std::move(request), std::move(gather));
      });
}

Reactor* BatchNormServiceImpl::Diagnose(Context* context, const grpc::ByteBuffer* request_bytes,
                                        grpc::ByteBuffer* reply_bytes) {
  return AnswerChange<v1::DiagnoseRequest, v1::DiagnoseReply>(
      context, "Diagnose", *gate_, *request_bytes, *reply_bytes,
      [this](const auto& message, auto& reply, MessageDone done) {
        const auto sessions = registry_.FindAll(message.name());
        if (!sessions.ok()) return std::move(done)(sessions.status());
        auto request = ReadDiagnoseRequest(message);
        if (!request.ok()) return std::move(done)(request.status());
        auto diagnose = [this, sessions = *sessions, with_channels = message.return_channels(), &reply,
                         done = std::move(done)](absl::StatusOr<DiagnoseRequest> asked) mutable {
          if (!asked.ok()) return std::move(done)(asked.status());
          const auto contents = registry_.ObserveAll(sessions);
          absl::Status status =
              CheckReplySize(asked->name, contents, with_channels ? sizeof(double) : 0, description_.max_message_bytes);
          if (!status.ok()) return std::move(done)(status);
          auto finish = WriteEachAndEnd(std::move(done), [&reply, with_channels](const SessionDiagnosis& diagnosis) {
            WriteDiagnosis(diagnosis, with_channels, *reply.add_sessions());
          });
          finish(normserve::Diagnose(sessions, contents, *asked));
        };
        if (!message.has_batch()) return std::move(diagnose)(*std::move(request));
        TakeBatch(engine_, *sessions, message, *std::move(request), std::move(diagnose));
      });
}

Reactor* BatchNormServiceImpl::GetMoments(Context* context, const grpc::ByteBuffer* request_bytes,
                                          grpc::ByteBuffer* reply_bytes) {
  v1::GetMomentsRequest request;
  v1::GetMomentsReply reply;
  return AnswerMessage(context, "GetMoments", *gate_, *request_bytes, request, reply, *reply_bytes,
                       [&]() -> absl::Status {
                         const auto sessions = registry_.FindAll(request.name());
                         if (!sessions.ok()) return sessions.status();
                         return WriteMomentsReply(*sessions, registry_.ObserveAll(*sessions), request,
                                                  description_.max_message_bytes, reply);
                       });
}

}  // namespace normserve
