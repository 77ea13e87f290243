// A whole model in one call: a name that ends in '/' speaks of all sessions below it.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/integration/server_process.h"
#include "tests/integration/test_client.h"

namespace normserve::integration {
namespace {

using grpc::StatusCode;

class ModelTest : public testing::Test {
 protected:
  void SetUp() override { ASSERT_FALSE(server_.address().empty()); }

  grpc::Status GetStats(const v1::GetStatsRequest& request, v1::GetStatsReply& reply) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    return server_.stub().GetStats(&context, request, &reply);
  }

  using Stub = v1::BatchNormService::Stub;

  template <typename Request, typename Reply>
  Reply Call(grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Reply*), const Request& request) {
    grpc::ClientContext context;
    Reply reply;
    EXPECT_THAT((server_.stub().*method)(&context, request, &reply), Succeeds());
    return reply;
  }

  // Of the sessions that `name` speaks of.
  std::vector<std::string> NamesIn(const std::string& name) {
    v1::GetStatsRequest request;
    request.set_name(name);
    v1::GetStatsReply reply;
    EXPECT_THAT(GetStats(request, reply), Succeeds());
    std::vector<std::string> names;
    for (const auto& session : reply.sessions()) names.push_back(session.name());
    return names;
  }

  ServerProcess server_;
  TestClient client_{server_.stub()};
};

TEST_F(ModelTest, StatsAreThoseOfEverySessionBelowThePrefixByName) {
  for (const char* name : {"net/b", "net/a", "net/a/deep", "net", "net2/a", "net-a/b"}) client_.Create(name, 2);
  EXPECT_EQ(NamesIn("net/"), std::vector<std::string>({"net/a", "net/a/deep", "net/b"}));
  EXPECT_EQ(NamesIn("net/a/"), std::vector<std::string>({"net/a/deep"}));
  EXPECT_EQ(NamesIn("net"), std::vector<std::string>({"net"}));

  EXPECT_THAT(client_.Forward(MakeForward("net/a", {4, 2}, SomeValues(8))), Succeeds());
  v1::GetStatsRequest request;
  request.set_name("net/");
  request.set_return_last_batch(true);
  v1::GetStatsReply model, single;
  ASSERT_THAT(GetStats(request, model), Succeeds());
  request.set_name("net/a");
  ASSERT_THAT(GetStats(request, single), Succeeds());
  EXPECT_EQ(model.sessions(0).SerializeAsString(), single.sessions(0).SerializeAsString());
  EXPECT_EQ(model.sessions(0).last_batch().count(), 4);
  EXPECT_EQ(model.sessions(2).statistics().num_batches_tracked(), 0);
}

TEST_F(ModelTest, ModesAndSnapshotsAreChangedTogether) {
  for (const char* name : {"net/a", "net/b", "nets/a"}) client_.Create(name, 2);
  v1::SnapshotStateRequest take;
  take.set_name("net/");
  take.set_snapshot("best");
  const v1::SnapshotStateReply taken = Call(&Stub::SnapshotState, take);
  ASSERT_EQ(taken.snapshots_size(), 2);
  EXPECT_EQ(taken.snapshots(1).name(), "net/b");

  v1::SetModeRequest mode;
  mode.set_name("net/");
  mode.set_mode(v1::MODE_EVAL);
  mode.set_request_id("id");
  const v1::SetModeReply changed = Call(&Stub::SetMode, mode);
  ASSERT_EQ(changed.sessions_size(), 2);
  EXPECT_EQ(client_.Get("net/b").mode(), v1::MODE_EVAL);
  EXPECT_EQ(client_.Get("nets/a").mode(), v1::MODE_TRAIN);
  EXPECT_EQ(Call(&Stub::SetMode, mode).SerializeAsString(), changed.SerializeAsString()) << "a repeat";

  v1::RestoreStateRequest restore;
  restore.set_name("net/");
  restore.set_snapshot("best");
  EXPECT_EQ(Call(&Stub::RestoreState, restore).sessions(0).generation(), 2);
  EXPECT_EQ(client_.Get("net/a").mode(), v1::MODE_TRAIN);
  v1::DeleteSnapshotRequest forget;
  forget.set_name("net/");
  forget.set_snapshot("best");
  EXPECT_EQ(Call(&Stub::DeleteSnapshot, forget).snapshots_size(), 2);

  mode.set_request_id("");
  mode.set_expected_generation(2);
  v1::SetModeReply reply;
  grpc::ClientContext context;
  EXPECT_THAT(server_.stub().SetMode(&context, mode, &reply), Fails(StatusCode::INVALID_ARGUMENT, "INVALID_FIELD"));
}

TEST_F(ModelTest, SnapshotsAreListedSessionBySessionAndAllIsDeletedTogether) {
  for (const char* name : {"net", "net/a", "net/b", "net/c", "nets/a"}) client_.Create(name, 2);
  v1::SnapshotStateRequest take;
  for (const char* snapshot : {"y", "x"}) {
    take.set_snapshot(snapshot);
    for (const char* name : {"net", "net/a", "net/c"}) {
      take.set_name(name);
      Call(&Stub::SnapshotState, take);
    }
  }
  v1::ListSnapshotsRequest list;
  list.set_name("net/");
  for (const int page_size : {1, 2, 3, 0}) {
    list.set_page_size(page_size);
    std::string listed;
    do {
      const v1::ListSnapshotsReply page = Call(&Stub::ListSnapshots, list);
      if (page_size > 0) EXPECT_LE(page.snapshots_size(), page_size);
      for (const auto& each : page.snapshots()) absl::StrAppend(&listed, each.name(), " ", each.snapshot(), ",");
      list.set_page_token(page.next_page_token());
    } while (!list.page_token().empty());
    EXPECT_EQ(listed, "net/a x,net/a y,net/c x,net/c y,") << page_size;
  }
  list.set_page_size(1);
  list.set_page_token(Call(&Stub::ListSnapshots, list).next_page_token());
  list.set_name("nets/");
  v1::ListSnapshotsReply page;
  grpc::ClientContext context;
  EXPECT_THAT(server_.stub().ListSnapshots(&context, list, &page),
              Fails(StatusCode::INVALID_ARGUMENT, "INVALID_FIELD"));

  v1::DeleteSessionRequest remove;
  remove.set_name("net/");
  remove.set_request_id("id");
  const v1::DeleteSessionReply removed = Call(&Stub::DeleteSession, remove);
  ASSERT_EQ(removed.sessions_size(), 3);
  EXPECT_EQ(removed.sessions(2).name(), "net/c");
  EXPECT_FALSE(removed.sessions(2).uid().empty());
  EXPECT_EQ(Call(&Stub::DeleteSession, remove).SerializeAsString(), removed.SerializeAsString()) << "a repeat";
  EXPECT_EQ(NamesIn("net"), std::vector<std::string>({"net"}));
  EXPECT_EQ(NamesIn("nets/"), std::vector<std::string>({"nets/a"}));
  remove.set_request_id("another");
  v1::DeleteSessionReply none;
  grpc::ClientContext none_context;
  EXPECT_THAT(server_.stub().DeleteSession(&none_context, remove, &none),
              Fails(StatusCode::NOT_FOUND, "SESSION_NOT_FOUND"));
}

TEST_F(ModelTest, WhatNamesNoSessionOrIsForOneAloneIsRefused) {
  client_.Create("net/a", 2);
  v1::GetStatsReply reply;
  v1::GetStatsRequest request;
  request.set_name("ne/");
  const grpc::Status none = GetStats(request, reply);
  EXPECT_THAT(none, Fails(StatusCode::NOT_FOUND, "SESSION_NOT_FOUND"));
  EXPECT_THAT(none.error_message(), testing::HasSubstr("begins with \"ne/\""));
  for (const char* name : {"/", "//", "net//", "-/"}) {
    request.set_name(name);
    EXPECT_THAT(GetStats(request, reply), Fails(StatusCode::INVALID_ARGUMENT, "INVALID_FIELD")) << name;
  }
  request.set_name("net/");
  request.mutable_channel_range()->set_count(1);
  const grpc::Status range = GetStats(request, reply);
  EXPECT_THAT(range, Fails(StatusCode::INVALID_ARGUMENT, "INVALID_FIELD"));
  EXPECT_THAT(range.error_message(), testing::HasSubstr("channel_range goes with a single session"));
}

TEST(LargeModelTest, AReplyBeyondTheMessageLimitIsRefusedBeforeItIsMade) {
  ServerProcess server({"--max-message-bytes", "65536"});
  ASSERT_FALSE(server.address().empty());
  TestClient client(server.stub());
  for (int i = 0; i < 5; ++i) client.Create(absl::StrCat("net/", i), 1000);
  v1::GetStatsRequest request;
  request.set_name("net/");
  v1::GetStatsReply reply;
  grpc::ClientContext context;
  const grpc::Status status = server.stub().GetStats(&context, request, &reply);
  EXPECT_THAT(status, Fails(StatusCode::RESOURCE_EXHAUSTED, "LIMIT_REACHED"));
  EXPECT_EQ(MetadataOf(status, "limit"), "max_message_bytes");
  EXPECT_THAT(status.error_message(), testing::HasSubstr("80000 bytes"));
}

}  // namespace
}  // namespace normserve::integration
