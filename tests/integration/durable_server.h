// Servers on one data directory, one after the other, and what is asked of them.
#pragma once

#include <grpcpp/client_context.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sqlite3.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/integration/server_process.h"
#include "tests/integration/test_client.h"
#include "tests/unit/store/scratch_directory.h"

namespace normserve::integration {

using Stub = v1::BatchNormService::Stub;

// Any call: Call(server, &Stub::SetMode, request, &reply).
template <typename Request, typename Reply>
grpc::Status Call(ServerProcess& server, grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Reply*),
                  const Request& request, Reply* reply) {
  grpc::ClientContext context;
  return (server.stub().*method)(&context, request, reply);
}

template <typename Request, typename Reply>
Reply MustCall(ServerProcess& server, grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Reply*),
               const Request& request) {
  Reply reply;
  EXPECT_THAT(Call(server, method, request, &reply), Succeeds());
  return reply;
}

inline v1::CreateSessionRequest Creation(const std::string& name, int64_t num_features,
                                         v1::Durability durability = v1::DURABILITY_UNSPECIFIED) {
  v1::CreateSessionRequest request;
  request.set_name(name);
  request.mutable_config()->set_num_features(num_features);
  request.mutable_config()->set_durability(durability);
  return request;
}

// Of SnapshotState, RestoreState, DeleteSnapshot.
template <typename Request>
Request OfSnapshot(const std::string& name, const std::string& snapshot, const std::string& request_id = "") {
  Request request;
  request.set_name(name);
  request.set_snapshot(snapshot);
  request.set_request_id(request_id);
  return request;
}

inline v1::Snapshot TakeSnapshot(ServerProcess& server, const std::string& name, const std::string& snapshot) {
  return MustCall(server, &Stub::SnapshotState, OfSnapshot<v1::SnapshotStateRequest>(name, snapshot)).snapshots(0);
}

inline v1::ListSnapshotsReply ListSnapshots(ServerProcess& server, const std::string& name, int page_size = 0,
                                            const std::string& page_token = "") {
  v1::ListSnapshotsRequest request;
  request.set_name(name);
  request.set_page_size(page_size);
  request.set_page_token(page_token);
  return MustCall(server, &Stub::ListSnapshots, request);
}

inline grpc::Status GetStats(ServerProcess& server, const std::string& name, v1::GetStatsReply* reply) {
  v1::GetStatsRequest request;
  request.set_name(name);
  request.set_return_shadow(true);
  request.set_return_last_batch(true);
  return Call(server, &Stub::GetStats, request, reply);
}

// All that outlives a server, as text.
inline std::string AllOf(ServerProcess& server, const std::string& name) {
  v1::GetStatsReply stats;
  EXPECT_THAT(GetStats(server, name, &stats), Succeeds());
  return absl::StrCat(TestClient(server.stub()).Get(name).DebugString(), stats.DebugString(),
                      ListSnapshots(server, name).DebugString());
}

// Runs SQL in a store that no server has open.
inline void Sql(const std::string& file, const std::string& statement) {
  sqlite3* database = nullptr;
  ASSERT_EQ(sqlite3_open(file.c_str(), &database), SQLITE_OK);
  char* message = nullptr;
  EXPECT_EQ(sqlite3_exec(database, statement.c_str(), nullptr, nullptr, &message), SQLITE_OK) << message;
  sqlite3_close(database);
}

class DurabilityTest : public testing::Test {
 protected:
  std::unique_ptr<ServerProcess> Start() {
    auto server = std::make_unique<ServerProcess>(std::vector<std::string>{"--data-dir", directory_.path()});
    EXPECT_FALSE(server->address().empty()) << server->Log();
    return server;
  }

  // SIGTERM or SIGKILL, and a server after it.
  void Restart(std::unique_ptr<ServerProcess>& server, int signal) {
    server->Signal(signal);
    EXPECT_EQ(server->Wait(), signal == SIGKILL ? -SIGKILL : 0);
    server = Start();
  }

  ScratchDirectory directory_;
};

}  // namespace normserve::integration
