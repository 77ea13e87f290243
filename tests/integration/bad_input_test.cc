// Bad input of every kind answers the named status and leaves the session as it was, to the byte.
#include <grpcpp/client_context.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/integration/raw_stream.h"
#include "tests/integration/server_process.h"
#include "tests/integration/test_client.h"

namespace normserve::integration {
namespace {

using grpc::StatusCode;

constexpr char kForward[] = "/normserve.v1.BatchNormService/Forward";
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

class BadInputTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    server_ = new ServerProcess({"--max-message-bytes", "1MiB", "--max-in-flight-bytes", "1MiB", "--max-num-features",
                                 "5000", "--max-sessions", "3"});
  }
  static void TearDownTestSuite() { delete server_; }

  void SetUp() override {
    ASSERT_FALSE(server_->address().empty()) << server_->Log();
    client_.Create("a", 3);
    ASSERT_THAT(client_.Forward(MakeForward("a", {4, 3, 2}, SomeValues(24))), Succeeds());
    before_ = client_.StateOf("a");
  }
  void TearDown() override {
    EXPECT_EQ(client_.StateOf("a"), before_) << "the state has changed";
    // And it still works.
    EXPECT_THAT(client_.Forward(MakeForward("a", {4, 3, 2}, SomeValues(24))), Succeeds());
    v1::DeleteSessionRequest request;
    request.set_name("a");
    grpc::ClientContext context;
    v1::DeleteSessionReply reply;
    EXPECT_THAT(server_->stub().DeleteSession(&context, request, &reply), Succeeds());
    grpc::ClientContext info_context;
    v1::ServerInfo info;
    EXPECT_THAT(server_->stub().GetServerInfo(&info_context, {}, &info), Succeeds());
    EXPECT_EQ(info.num_sessions(), 0);
    EXPECT_EQ(info.state_bytes(), 0);
  }

  static ServerProcess* server_;
  TestClient client_{server_->stub()};
  std::string before_;
};

ServerProcess* BadInputTest::server_ = nullptr;

TEST_F(BadInputTest, ForwardsThatDoNotFitAreRefused) {
  struct Case {
    const char* what;
    std::function<void(v1::ForwardRequest&)> spoil;
    StatusCode code;
    const char* reason;
    const char* field;
  };
  const auto reshape = [](std::vector<int64_t> shape) {
    return [shape](v1::ForwardRequest& r) { r.mutable_input()->mutable_shape()->Assign(shape.begin(), shape.end()); };
  };
  const int64_t huge = int64_t{1} << 31;
  const auto bad = StatusCode::INVALID_ARGUMENT;
  const Case cases[] = {
      {"unknown session", [](auto& r) { r.set_name("b"); }, StatusCode::NOT_FOUND, "SESSION_NOT_FOUND", ""},
      {"illegal name", [](auto& r) { r.set_name("a//b"); }, bad, "INVALID_FIELD", "name"},
      {"no name", [](auto& r) { r.clear_name(); }, bad, "INVALID_FIELD", "name"},
      {"wrong channel count", reshape({4, 2, 3}), bad, "SHAPE_MISMATCH", "input.shape"},
      {"too few bytes", [](auto& r) { r.mutable_input()->mutable_data()->pop_back(); }, bad, "SHAPE_MISMATCH",
       "input.data"},
      {"too many bytes", [](auto& r) { r.mutable_input()->mutable_data()->append("0000"); }, bad, "SHAPE_MISMATCH",
       "input.data"},
      {"no bytes", [](auto& r) { r.mutable_input()->clear_data(); }, bad, "SHAPE_MISMATCH", "input.data"},
      {"no tensor", [](auto& r) { r.clear_input(); }, bad, "SHAPE_MISMATCH", "input.shape"},
      {"one dimension", reshape({24}), bad, "SHAPE_MISMATCH", "input.shape"},
      {"product overflows", reshape({huge, 3, huge, huge}), bad, "SHAPE_MISMATCH", "input.shape"},
      {"product overflows to the right size", reshape({int64_t{1} << 62, 3, 8}), bad, "SHAPE_MISMATCH", "input.shape"},
      {"far more than was sent", reshape({huge, 3, 1000}), bad, "SHAPE_MISMATCH", "input.data"},
      {"zero dimension", reshape({4, 3, 0}), bad, "SHAPE_MISMATCH", "input.shape"},
      {"zero channels", reshape({4, 0, 2}), bad, "SHAPE_MISMATCH", "input.shape"},
      {"negative dimension", reshape({4, 3, -2}), bad, "SHAPE_MISMATCH", "input.shape"},
      {"negative batch", reshape({-4, 3, 2}), bad, "SHAPE_MISMATCH", "input.shape"},
      {"two negatives", reshape({-4, 3, -2}), bad, "SHAPE_MISMATCH", "input.shape"},
      {"empty batch with bytes", reshape({0, 3, 2}), bad, "SHAPE_MISMATCH", "input.data"},
      {"one value per channel",
       [&](auto& r) {
         reshape({1, 3, 1, 1})(r);
         r.mutable_input()->mutable_data()->resize(12);
       },
       bad, "BATCH_TOO_SMALL", "input.shape"},
      {"NaN",
       [](auto& r) {
         const float nan = NAN;
         r.mutable_input()->mutable_data()->replace(8, 4, reinterpret_cast<const char*>(&nan), 4);
       },
       bad, "NON_FINITE", "input.data"},
      {"unknown mode", [](auto& r) { r.set_mode(static_cast<v1::Mode>(4)); }, bad, "INVALID_FIELD", "mode"},
      {"unknown update", [](auto& r) { r.set_update(static_cast<v1::Update>(77)); }, bad, "INVALID_FIELD", "update"},
      {"unknown type", [](auto& r) { r.mutable_input()->set_data_type(static_cast<v1::DataType>(4)); }, bad,
       "INVALID_FIELD", "input.data_type"},
      {"unknown layout", [](auto& r) { r.mutable_input()->set_layout(static_cast<v1::Layout>(-1)); }, bad,
       "INVALID_FIELD", "input.layout"},
      {"given without vectors", [](auto& r) { r.mutable_given()->set_count(1); }, bad, "INVALID_FIELD", "given.mean"},
      {"given without count",
       [](auto& r) {
         for (int i = 0; i < 3; ++i) r.mutable_given()->add_mean(0), r.mutable_given()->add_m2(1);
       },
       bad, "INVALID_FIELD", "given.count"},
      {"long request_id", [](auto& r) { r.set_request_id(std::string(129, 'x')); }, bad, "INVALID_FIELD", "request_id"},
      {"other generation", [](auto& r) { r.set_expected_generation(7); }, StatusCode::ABORTED, "GENERATION_MISMATCH",
       ""},
      {"negative generation", [](auto& r) { r.set_expected_generation(-1); }, bad, "INVALID_FIELD",
       "expected_generation"},
      {"other uid", [](auto& r) { r.set_expected_uid("x"); }, StatusCode::ABORTED, "UID_MISMATCH", ""},
  };
  for (const Case& c : cases) {
    v1::ForwardRequest request = MakeForward("a", {4, 3, 2}, SomeValues(24));
    c.spoil(request);
    const grpc::Status status = client_.Forward(request);
    EXPECT_THAT(status, Fails(c.code, c.reason)) << c.what;
    EXPECT_EQ(MetadataOf(status, "field"), c.field) << c.what;
    EXPECT_EQ(client_.StateOf("a"), before_) << c.what;
  }
}

TEST_F(BadInputTest, AnEmptyBatchGivesAnEmptyOutputAndIsNotCounted) {
  v1::ForwardReply reply;
  v1::ForwardRequest request = MakeForward("a", {0, 3, 2}, {});
  request.set_return_batch_moments(true);
  ASSERT_THAT(client_.Forward(request, &reply), Succeeds());
  EXPECT_EQ(reply.update(), v1::UPDATE_NONE);
  EXPECT_TRUE(reply.has_batch_moments());
  EXPECT_EQ(reply.batch_moments().count(), 0);
  EXPECT_EQ(reply.output().shape(0), 0);
  EXPECT_TRUE(reply.output().data().empty());
}

TEST_F(BadInputTest, MessagesSayWhatPyTorchSaysAndWhatWouldBeRight) {
  v1::ForwardRequest request = MakeForward("a", {1, 3, 1, 1}, {1, 2, 3});
  EXPECT_TRUE(absl::StrContains(
      client_.Forward(request).error_message(),
      "Expected more than 1 value per channel when training, got input size torch.Size([1, 3, 1, 1])"));
  request = MakeForward("a", {2, 32, 5}, SomeValues(320));
  EXPECT_TRUE(absl::StrContains(client_.Forward(request).error_message(),
                                "input has 32 channels, session \"a\" has 3: send [N, 3, ...]"));
}

TEST_F(BadInputTest, SessionsThatCannotBeAreRefused) {
  struct Case {
    const char* field;
    std::function<void(v1::CreateSessionRequest&)> spoil;
  };
  const Case cases[] = {
      {"config.num_features", [](auto& r) { r.clear_config(); }},
      {"config.num_features", [](auto& r) { r.mutable_config()->set_num_features(0); }},
      {"config.num_features", [](auto& r) { r.mutable_config()->set_num_features(-3); }},
      {"config.num_features", [](auto& r) { r.mutable_config()->set_num_features(5001); }},
      {"config.num_features",
       [](auto& r) { r.mutable_config()->set_num_features(std::numeric_limits<int64_t>::max()); }},
      {"config.epsilon", [](auto& r) { r.mutable_config()->set_epsilon(kNaN); }},
      {"config.epsilon", [](auto& r) { r.mutable_config()->set_epsilon(-1); }},
      {"config.momentum", [](auto& r) { r.mutable_config()->set_momentum(kInfinity); }},
      {"config.momentum", [](auto& r) { r.mutable_config()->set_momentum(kNaN); }},
      // idle_timeout, which a later version of the contract has.
      {"SessionConfig.12",
       [](auto& r) {
         r.mutable_config()->GetReflection()->MutableUnknownFields(r.mutable_config())->AddLengthDelimited(12, "");
       }},
      {"config.durability", [](auto& r) { r.mutable_config()->set_durability(static_cast<v1::Durability>(4)); }},
      {"config.labels", [](auto& r) { (*r.mutable_config()->mutable_labels())[""] = "v"; }},
      {"config.labels", [](auto& r) { (*r.mutable_config()->mutable_labels())["k\n"] = "v"; }},
      {"config.labels", [](auto& r) { (*r.mutable_config()->mutable_labels())["k"] = std::string(256, 'v'); }},
      {"config.labels",
       [](auto& r) {
         for (int i = 0; i < 65; ++i) (*r.mutable_config()->mutable_labels())[std::to_string(i)] = "v";
       }},
      {"name", [](auto& r) { r.set_name("a b"); }},
      {"name", [](auto& r) { r.set_name("a/"); }},
      {"name", [](auto& r) { r.set_name(std::string(256, 'a')); }},
      {"mode", [](auto& r) { r.set_mode(static_cast<v1::Mode>(4)); }},
      {"parameters.weight", [](auto& r) { r.mutable_parameters()->add_weight(1); }},
      {"parameters.bias",
       [](auto& r) {
         for (int i = 0; i < 3; ++i) r.mutable_parameters()->add_bias(NAN);
       }},
      {"statistics.running_mean", [](auto& r) { r.mutable_statistics()->set_num_batches_tracked(1); }},
      {"statistics.running_var",
       [](auto& r) {
         for (int i = 0; i < 3; ++i) r.mutable_statistics()->add_running_mean(0);
         for (int i = 0; i < 3; ++i) r.mutable_statistics()->add_running_var(-1);
       }},
  };
  for (const Case& c : cases) {
    v1::CreateSessionRequest request;
    request.set_name("b");
    request.mutable_config()->set_num_features(3);
    c.spoil(request);
    grpc::ClientContext context;
    v1::Session session;
    const grpc::Status status = server_->stub().CreateSession(&context, request, &session);
    EXPECT_THAT(status, Fails(StatusCode::INVALID_ARGUMENT, "INVALID_FIELD")) << c.field;
    EXPECT_EQ(MetadataOf(status, "field"), c.field);
  }
}

TEST_F(BadInputTest, TakenNamesAndUnknownSessionsAreRefused) {
  v1::CreateSessionRequest create;
  create.set_name("a");
  create.mutable_config()->set_num_features(3);
  v1::Session session;
  grpc::ClientContext create_context;
  EXPECT_THAT(server_->stub().CreateSession(&create_context, create, &session),
              Fails(StatusCode::ALREADY_EXISTS, "SESSION_EXISTS"));
  v1::CloneSessionRequest clone;
  clone.set_name("nobody");
  grpc::ClientContext clone_context;
  EXPECT_THAT(server_->stub().CloneSession(&clone_context, clone, &session),
              Fails(StatusCode::NOT_FOUND, "SESSION_NOT_FOUND"));
  EXPECT_THAT(client_.SetMode("nobody", v1::MODE_EVAL), Fails(StatusCode::NOT_FOUND, "SESSION_NOT_FOUND"));
  EXPECT_THAT(client_.SetMode("a", v1::MODE_UNSPECIFIED), Fails(StatusCode::INVALID_ARGUMENT, "INVALID_FIELD"));
  EXPECT_THAT(client_.SetMode("a", static_cast<v1::Mode>(4)), Fails(StatusCode::INVALID_ARGUMENT, "INVALID_FIELD"));
  v1::GetStatsRequest stats;
  stats.set_name("a");
  v1::GetStatsReply stats_reply;
  for (const auto& [first, count] : std::vector<std::pair<int64_t, int64_t>>{
           {-1, 1}, {3, 1}, {0, 4}, {2, 2}, {1, -1}, {1, std::numeric_limits<int64_t>::max()}}) {
    stats.mutable_channel_range()->set_first(first);
    stats.mutable_channel_range()->set_count(count);
    grpc::ClientContext context;
    EXPECT_THAT(server_->stub().GetStats(&context, stats, &stats_reply),
                Fails(StatusCode::INVALID_ARGUMENT, "INVALID_FIELD"))
        << first << " " << count;
  }
  v1::GetSessionRequest get;
  get.set_name("a");
  get.set_view(static_cast<v1::SessionView>(9));
  grpc::ClientContext get_context;
  EXPECT_THAT(server_->stub().GetSession(&get_context, get, &session),
              Fails(StatusCode::INVALID_ARGUMENT, "INVALID_FIELD"));
}

TEST_F(BadInputTest, TooManySessionsAreRefusedWithARetryHint) {
  for (const char* name : {"b", "c"}) client_.Create(name, 1);
  v1::CreateSessionRequest create;
  create.mutable_config()->set_num_features(1);
  v1::Session session;
  grpc::ClientContext context;
  const grpc::Status status = server_->stub().CreateSession(&context, create, &session);
  EXPECT_THAT(status, Fails(StatusCode::RESOURCE_EXHAUSTED, "LIMIT_REACHED"));
  EXPECT_EQ(MetadataOf(status, "limit"), "max_sessions");
  EXPECT_TRUE(absl::StrContains(status.error_details(), "google.rpc.RetryInfo"));
  for (const char* name : {"b", "c"}) {
    v1::DeleteSessionRequest request;
    request.set_name(name);
    grpc::ClientContext delete_context;
    v1::DeleteSessionReply reply;
    EXPECT_THAT(server_->stub().DeleteSession(&delete_context, request, &reply), Succeeds());
  }
}

TEST_F(BadInputTest, TruncatedMessagesAreRefused) {
  const std::string bytes = MakeForward("a", {4, 3, 2}, SomeValues(24)).SerializeAsString();
  for (const size_t length : {size_t{1}, size_t{2}, size_t{5}, bytes.size() - 97, bytes.size() - 1}) {
    std::string reply;
    EXPECT_THAT(RawCall(server_->channel(), kForward, bytes.substr(0, length), &reply),
                Fails(StatusCode::INVALID_ARGUMENT, "INVALID_FIELD"))
        << length;
  }
  std::string reply;
  EXPECT_THAT(RawCall(server_->channel(), kForward, std::string(100, '\xff'), &reply),
              Fails(StatusCode::INVALID_ARGUMENT, "INVALID_FIELD"));
  for (const char* method : {"CreateSession", "GetSession", "ListSessions", "DeleteSession", "CloneSession", "SetMode",
                             "SetParameters", "GetStats", "GetServerInfo"}) {
    EXPECT_THAT(
        RawCall(server_->channel(), absl::StrCat("/normserve.v1.BatchNormService/", method), "\x0a\x7f", &reply),
        Fails(StatusCode::INVALID_ARGUMENT, "INVALID_FIELD"))
        << method;
  }
  EXPECT_EQ(RawCall(server_->channel(), "/normserve.v1.BatchNormService/NoSuch", "", &reply).error_code(),
            StatusCode::UNIMPLEMENTED);
}

// A status travels in a header block of 8 KiB: what a client sent must not make it longer.
TEST_F(BadInputTest, LongValuesAreRefusedWithAStatusThatArrives) {
  v1::GetSessionRequest get;
  get.set_name(std::string(100'000, 'x'));
  v1::Session session;
  grpc::ClientContext get_context;
  EXPECT_THAT(server_->stub().GetSession(&get_context, get, &session),
              Fails(StatusCode::INVALID_ARGUMENT, "INVALID_FIELD"));

  v1::ListSessionsRequest list;
  list.set_page_token(std::string(100'000, 'x'));
  v1::ListSessionsReply page;
  grpc::ClientContext list_context;
  EXPECT_THAT(server_->stub().ListSessions(&list_context, list, &page),
              Fails(StatusCode::INVALID_ARGUMENT, "INVALID_FIELD"));

  v1::ForwardRequest forward = MakeForward("a", {2, 3}, SomeValues(6));
  forward.set_expected_uid(std::string(2'500, '\x01'));
  EXPECT_THAT(client_.Forward(forward), Fails(StatusCode::INVALID_ARGUMENT, "INVALID_FIELD"));

  std::vector<int64_t> shape = {1, 3};
  shape.resize(3'000, 1);
  EXPECT_THAT(client_.Forward(MakeForward("a", shape, SomeValues(3))),
              Fails(StatusCode::INVALID_ARGUMENT, "SHAPE_MISMATCH"));
  shape.resize(200'000, 1);
  EXPECT_THAT(client_.Forward(MakeForward("a", shape, SomeValues(3))),
              Fails(StatusCode::INVALID_ARGUMENT, "INVALID_FIELD"));

  grpc::ClientContext metadata_context;
  metadata_context.AddMetadata("normserve-session", std::string(6'000, 'y'));
  get.set_name("a");
  EXPECT_THAT(server_->stub().GetSession(&metadata_context, get, &session),
              Fails(StatusCode::INVALID_ARGUMENT, "INVALID_FIELD"));
}

TEST_F(BadInputTest, CompressedMessagesAreRefusedBeforeTheyAreInflated) {
  v1::GetSessionRequest get;
  v1::Session session;
  grpc::ClientContext context;
  context.set_compression_algorithm(GRPC_COMPRESS_GZIP);
  get.set_name(std::string(10'000, 'z'));  // long enough to be compressed
  EXPECT_EQ(server_->stub().GetSession(&context, get, &session).error_code(), StatusCode::UNIMPLEMENTED);
}

TEST_F(BadInputTest, AMessageOverTheLimitIsRefused) {
  const grpc::Status status = client_.Forward(MakeForward("a", {1 << 17, 3}, SomeValues(3 << 17)));
  EXPECT_EQ(status.error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_TRUE(absl::StrContains(status.error_message(), "1048576")) << status.error_message();
}

TEST_F(BadInputTest, BytesInWorkBeyondTheLimitAreRefused) {
  // A reply that nobody reads holds 900,000 of the 1 MiB.
  client_.Create("wide", 3);
  const std::vector<float> values = SomeValues(3 * 75'000);
  v1::ForwardRequest request = MakeForward("wide", {75'000, 3}, values);
  {
    RawStream stream(server_->NewChannel(), kForward);
    ASSERT_TRUE(stream.WriteLast(request.SerializeAsString()));
    while (client_.Get("wide").num_batches_tracked() == 0) {
    }
    const grpc::Status status = client_.Forward(request);
    EXPECT_THAT(status, Fails(StatusCode::RESOURCE_EXHAUSTED, "LIMIT_REACHED"));
    EXPECT_EQ(MetadataOf(status, "limit"), "max_in_flight_bytes");
    std::string reply;
    EXPECT_TRUE(stream.Read(&reply));
    EXPECT_THAT(stream.Finish(), Succeeds());
  }
  // What was read is given back; the server may hear of it a little later. Until then the transport, short of memory,
  // may also cut a call whose batch is committed already: the id makes its repeat the same request.
  request.set_request_id("once");
  while (!client_.Forward(request).ok()) {
  }
  EXPECT_EQ(client_.Get("wide").num_batches_tracked(), 2);
  v1::DeleteSessionRequest remove;
  remove.set_name("wide");
  grpc::ClientContext context;
  v1::DeleteSessionReply reply;
  EXPECT_THAT(server_->stub().DeleteSession(&context, remove, &reply), Succeeds());
}

TEST_F(BadInputTest, MetadataThatNamesAnotherSessionIsRefused) {
  v1::ForwardReply reply;
  grpc::ClientContext other;
  other.AddMetadata("normserve-session", "b");
  EXPECT_THAT(server_->stub().Forward(&other, MakeForward("a", {4, 3, 2}, SomeValues(24)), &reply),
              Fails(StatusCode::INVALID_ARGUMENT, "INVALID_FIELD"));
  v1::GetSessionRequest get;
  get.set_name("a");
  v1::Session session;
  grpc::ClientContext other_get, same_get;
  other_get.AddMetadata("normserve-session", "a/b");
  EXPECT_THAT(server_->stub().GetSession(&other_get, get, &session),
              Fails(StatusCode::INVALID_ARGUMENT, "INVALID_FIELD"));
  same_get.AddMetadata("normserve-session", "a");
  EXPECT_THAT(server_->stub().GetSession(&same_get, get, &session), Succeeds());
}

}  // namespace
}  // namespace normserve::integration
