// The client library over a network that loses requests and replies: every change is made exactly once, every answer is
// right, and a dropped input is sent again.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "normserve/client.h"
#include "normserve/grpc_connection.h"
#include "tests/integration/server_process.h"

namespace normserve::client {
namespace {

// Passes Forwards on to the server. Of three calls about one is lost on the way there, one has its reply lost, and some
// arrive twice, the second time while the first runs.
class LossyConnection : public Connection {
 public:
  explicit LossyConnection(std::shared_ptr<Connection> real) : real_(std::move(real)) {}

  absl::StatusOr<ForwardResult> Forward(const ForwardRequest& request, absl::Time deadline) override {
    const int fate = Draw();
    if (fate < 2) {
      ++lost_;
      return absl::UnavailableError("lost on the way");
    }
    if (fate == 2) {
      std::thread twin([&] { (void)real_->Forward(request, deadline); });
      auto result = real_->Forward(request, deadline);
      twin.join();
      return result;
    }
    auto result = real_->Forward(request, deadline);
    if (fate < 5) {
      ++lost_;
      return absl::UnavailableError("the reply was lost");
    }
    return result;
  }

  absl::StatusOr<BackwardResult> Backward(const BackwardRequest& request, absl::Time deadline) override {
    return real_->Backward(request, deadline);
  }
  absl::StatusOr<std::vector<Observed>> Observe(const ObserveRequest& request, absl::Time deadline) override {
    return real_->Observe(request, deadline);
  }
  absl::StatusOr<std::vector<SessionMoments>> GetMoments(const GetMomentsRequest& request,
                                                         absl::Time deadline) override {
    return real_->GetMoments(request, deadline);
  }
  absl::StatusOr<std::vector<Merged>> MergeMoments(const MergeMomentsRequest& request, absl::Time deadline) override {
    return real_->MergeMoments(request, deadline);
  }
  absl::StatusOr<std::vector<Calibrated>> Calibrate(const CalibrateRequest& request, absl::Time deadline) override {
    return real_->Calibrate(request, deadline);
  }
  absl::StatusOr<Session> CreateSession(const CreateSessionRequest& request, absl::Time deadline) override {
    return real_->CreateSession(request, deadline);
  }
  absl::StatusOr<Session> GetSession(const std::string& name, bool full, absl::Time deadline) override {
    return real_->GetSession(name, full, deadline);
  }
  absl::StatusOr<ListSessionsReply> ListSessions(const ListSessionsRequest& request, absl::Time deadline) override {
    return real_->ListSessions(request, deadline);
  }
  absl::StatusOr<Session> CloneSession(const CloneSessionRequest& request, absl::Time deadline) override {
    return real_->CloneSession(request, deadline);
  }
  absl::StatusOr<std::vector<Session>> SetMode(const SetModeRequest& request, absl::Time deadline) override {
    return real_->SetMode(request, deadline);
  }
  absl::StatusOr<Session> SetParameters(const SetParametersRequest& request, absl::Time deadline) override {
    return real_->SetParameters(request, deadline);
  }
  absl::StatusOr<std::vector<DeletedSession>> DeleteSession(const DeleteSessionRequest& request,
                                                            absl::Time deadline) override {
    return real_->DeleteSession(request, deadline);
  }
  absl::StatusOr<ImportResult> ImportState(const ImportStateRequest& request, absl::Time deadline) override {
    return real_->ImportState(request, deadline);
  }
  absl::StatusOr<Export> ExportState(const ExportStateRequest& request, absl::Time deadline) override {
    return real_->ExportState(request, deadline);
  }
  absl::StatusOr<std::vector<Snapshot>> SnapshotState(const SnapshotStateRequest& request,
                                                      absl::Time deadline) override {
    return real_->SnapshotState(request, deadline);
  }
  absl::StatusOr<std::vector<Session>> RestoreState(const RestoreStateRequest& request, absl::Time deadline) override {
    return real_->RestoreState(request, deadline);
  }
  absl::StatusOr<ListSnapshotsReply> ListSnapshots(const ListSnapshotsRequest& request, absl::Time deadline) override {
    return real_->ListSnapshots(request, deadline);
  }
  absl::Status DeleteSnapshot(const DeleteSnapshotRequest& request, absl::Time deadline) override {
    return real_->DeleteSnapshot(request, deadline);
  }
  absl::StatusOr<std::vector<SessionStats>> GetStats(const GetStatsRequest& request, absl::Time deadline) override {
    return real_->GetStats(request, deadline);
  }
  absl::StatusOr<std::vector<Diagnosis>> Diagnose(const DiagnoseRequest& request, absl::Time deadline) override {
    return real_->Diagnose(request, deadline);
  }
  absl::StatusOr<ServerInfo> GetServerInfo(absl::Time deadline) override { return real_->GetServerInfo(deadline); }
  absl::StatusOr<Health> CheckHealth(const std::string& service, absl::Time deadline) override {
    return real_->CheckHealth(service, deadline);
  }

  int lost() const { return lost_; }

 private:
  int Draw() {
    absl::MutexLock lock(&mutex_);
    return static_cast<int>(random_() % 10);
  }

  const std::shared_ptr<Connection> real_;
  std::atomic<int> lost_{0};
  absl::Mutex mutex_;
  std::mt19937 random_ ABSL_GUARDED_BY(mutex_){7};
};

ClientOptions Impatient() {
  ClientOptions options;
  options.retry.initial_backoff = absl::Microseconds(100);
  options.retry.max_backoff = absl::Milliseconds(1);
  options.timeout = absl::Seconds(60);
  return options;
}

TEST(AtMostOnce, TenThousandForwardsOverALossyNetworkCountTenThousandAndAreRight) {
  constexpr int kThreads = 8, kForwards = 1250;
  integration::ServerProcess server;
  ASSERT_FALSE(server.address().empty()) << server.Log();
  auto lossy = std::make_shared<LossyConnection>(MakeGrpcConnection(server.address()));
  const Client client(lossy, Impatient());
  auto bn = client.CreateSession({.name = "once", .config = {.num_features = 1}});
  ASSERT_TRUE(bn.ok()) << bn.status();

  absl::Mutex mutex;
  std::set<int64_t> generations;  // guarded by mutex
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kForwards; ++i) {
        const float a = static_cast<float>(t * kForwards + i), b = a + 1 + static_cast<float>(i % 7);
        const std::vector<int64_t> shape = {2, 1};
        const std::vector<float> values = {a, b};
        const auto result = bn->Forward({shape, values});
        // (x - mean) / sqrt(var + epsilon), of two values.
        const double half = (b - a) / 2.0, expected = half / std::sqrt(half * half + 1e-5);
        if (!result.ok() || std::abs(result->output.values[1] - expected) > 1e-6 ||
            std::abs(result->output.values[0] + expected) > 1e-6 || result->update != Update::kRunning) {
          ++wrong;
          continue;
        }
        absl::MutexLock lock(&mutex);
        generations.insert(result->generation);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();

  EXPECT_EQ(wrong, 0);
  EXPECT_GT(lossy->lost(), kThreads * kForwards / 2) << "nothing was lost: the test proves nothing";
  const auto stats = bn->Stats();
  ASSERT_TRUE(stats.ok()) << stats.status();
  EXPECT_EQ(stats->statistics.num_batches_tracked, kThreads * kForwards);
  // Each answer tells the one generation that it made: none is told twice, none is missing.
  EXPECT_EQ(stats->generation, kThreads * kForwards);
  EXPECT_EQ(generations.size(), static_cast<size_t>(kThreads * kForwards));
}

TEST(AtMostOnce, ARepeatGivesTheSameBitsGenerationAndMoments) {
  integration::ServerProcess server;
  ASSERT_FALSE(server.address().empty()) << server.Log();
  const Client client(MakeGrpcConnection(server.address()));
  auto bn = client.CreateSession({.config = {.num_features = 2}});
  ASSERT_TRUE(bn.ok()) << bn.status();
  const Tensor batch = {{3, 2}, {1, 2, 4, 8, 16, 32}}, other = {{3, 2}, {1, 2, 4, 8, 16, 33}};
  for (Update update : {Update::kRunning, Update::kShadow}) {
    ForwardOptions options{.update = update, .return_batch_moments = true};
    options.call.request_id = update == Update::kRunning ? "running" : "shadow";
    const auto first = bn->Forward(batch, options);
    ASSERT_TRUE(first.ok()) << first.status();
    ASSERT_TRUE(bn->Forward(other).ok());
    ASSERT_TRUE(bn->SetParameters({.weight = {3, 4}}).ok());
    const auto again = bn->Forward(batch, options);
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(again->output.values, first->output.values);
    EXPECT_EQ(again->generation, first->generation);
    EXPECT_EQ(again->batch_moments->m2, first->batch_moments->m2);
    EXPECT_TRUE(absl::IsInvalidArgument(bn->Forward(other, options).status()));
  }
  EXPECT_EQ(bn->Stats()->statistics.num_batches_tracked, 3);
  EXPECT_EQ(bn->Stats({.return_shadow = true})->shadow->count, 3);
  ForwardOptions late{.call = {.expected_generation = 1}};
  EXPECT_TRUE(absl::IsAborted(bn->Forward(batch, late).status()));
  EXPECT_EQ(bn->Stats()->statistics.num_batches_tracked, 3);
}

TEST(Backward, TheInputIsSentAgainWhereTheServerHasDroppedIt) {
  const Tensor input = {{4, 2, 3}, {1, 2, 3, 4, 5, 7, 2, 9, 4, 1, 0, 3, 5, 5, 6, 2, 2, 8, 1, 1, 3, 7, 6, 4}};
  const Tensor gradient = {{4, 2, 3}, {1, 0, 2, 1, 3, 1, 0, 1, 1, 2, 1, 0, 1, 4, 1, 0, 2, 1, 1, 0, 0, 1, 3, 1}};
  std::vector<float> gradients[2];
  for (const bool keeps : {true, false}) {
    integration::ServerProcess server({"--max-saved-forward-bytes", keeps ? "1MiB" : "0"});
    ASSERT_FALSE(server.address().empty()) << server.Log();
    const Client client(MakeGrpcConnection(server.address()));
    auto bn = client.CreateSession({.config = {.num_features = 2}});
    ASSERT_TRUE(bn.ok()) << bn.status();
    const auto forward = bn->Forward(input, {.save_for_backward = true});
    ASSERT_TRUE(forward.ok()) << forward.status();
    ASSERT_TRUE(forward->saved.has_value());
    EXPECT_EQ(forward->saved->token.empty(), !keeps);
    const auto backward = bn->Backward(gradient, *forward->saved, input);
    ASSERT_TRUE(backward.ok()) << backward.status();
    EXPECT_EQ(backward->resent, !keeps);
    gradients[keeps] = backward->grad_input.values;
    // A token that the server does not know is as good as a dropped one.
    SavedForward unknown = *forward->saved;
    unknown.token = "00000000000000000000000000000000";
    const auto again = bn->Backward(gradient, unknown, input, {.release = true});
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_TRUE(again->resent);
    EXPECT_EQ(again->grad_input.values, backward->grad_input.values);
    EXPECT_EQ(again->grad_weight, backward->grad_weight);
    // The gradient of the bias is the sum of the output's.
    EXPECT_EQ(backward->grad_bias, std::vector<float>({12, 16}));
    const auto sums = bn->Backward(gradient, *forward->saved, input, {.stop_at_sums = true});
    ASSERT_TRUE(sums.ok()) << sums.status();
    EXPECT_TRUE(sums->grad_input.values.empty());
    const auto rest = bn->Backward(gradient, *forward->saved, input, {.start_from_sums = sums->sums});
    ASSERT_TRUE(rest.ok()) << rest.status();
    EXPECT_EQ(rest->grad_input.values, backward->grad_input.values);
  }
  EXPECT_EQ(gradients[0], gradients[1]);
}

TEST(Layouts, ChannelsLastIsTheSameValuesElsewhere) {
  integration::ServerProcess server;
  ASSERT_FALSE(server.address().empty()) << server.Log();
  const Client client(MakeGrpcConnection(server.address()));
  auto bn = client.CreateSession({.config = {.num_features = 2, .averaging = Averaging::kCumulative, .affine = false}});
  ASSERT_TRUE(bn.ok()) << bn.status();
  const auto described = bn->Describe();
  ASSERT_TRUE(described.ok()) << described.status();
  EXPECT_EQ(described->config.averaging, Averaging::kCumulative);
  EXPECT_EQ(described->config.affine, false);
  EXPECT_EQ(described->config.running_variance, RunningVariance::kUnbiased);
  EXPECT_FALSE(described->parameters.has_value());
  const Tensor first = {{2, 2, 2}, {1, 2, 30, 40, 3, 4, 50, 60}};
  const Tensor last = {{2, 2, 2}, {1, 30, 2, 40, 3, 50, 4, 60}, Layout::kChannelsLast};
  const auto y = bn->Forward(first), z = bn->Forward(last);
  ASSERT_TRUE(y.ok()) << y.status();
  ASSERT_TRUE(z.ok()) << z.status();
  EXPECT_EQ(z->output.layout, Layout::kChannelsLast);
  for (size_t n = 0; n < 2; ++n) {
    for (size_t c = 0; c < 2; ++c) {
      for (size_t s = 0; s < 2; ++s) {
        EXPECT_EQ(z->output.values[n * 4 + s * 2 + c], y->output.values[n * 4 + c * 2 + s]);
      }
    }
  }
  EXPECT_EQ(bn->Stats()->statistics.running_mean, std::vector<double>({2.5, 45}));
}

}  // namespace
}  // namespace normserve::client
