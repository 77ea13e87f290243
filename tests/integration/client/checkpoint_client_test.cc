// The client library's import and export, over a real server.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "normserve/client.h"
#include "tests/integration/server_process.h"

namespace normserve::client {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class CheckpointClient : public testing::Test {
 protected:
  CheckpointClient() : client_(*Client::Connect(server_.address())) {}

  // A model of two layers, exported.
  std::string MakeFile() {
    for (const char* name : {"net/a", "net/b.c"}) {
      const auto made = client_.CreateSession(
          {.name = name,
           .config = {.num_features = 2},
           .parameters = {.weight = {1.5f, -2}, .bias = {0.25f, 7}},
           .statistics = RunningStatistics{.running_mean = {1, 2}, .running_var = {3, 4}, .num_batches_tracked = 9}});
      EXPECT_TRUE(made.ok()) << made.status();
    }
    const auto exported = client_.AttachModel("net").Export();
    EXPECT_TRUE(exported.ok()) << exported.status();
    EXPECT_EQ(exported->layers.size(), 2u);
    EXPECT_EQ(exported->layers[1].path, "b.c");
    EXPECT_EQ(exported->layers[1].momentum, 0.1);
    EXPECT_EQ(exported->largest_relative_error, 0);
    return exported->file;
  }

  integration::ServerProcess server_;
  Client client_;
};

TEST_F(CheckpointClient, WhatIsExportedIsImportedAgainFromBytesAndFromAFile) {
  const std::string file = MakeFile();
  const std::string path = testing::TempDir() + "/checkpoint_client_test." + std::to_string(::getpid());
  std::ofstream(path, std::ios::binary) << file;
  int64_t sent = 0, all = 0;
  const ImportOptions options{.config = {.epsilon = 0.5}, .progress = [&](int64_t bytes, int64_t all_bytes) {
                                sent = bytes;
                                all = all_bytes;
                              }};
  const auto of_bytes = client_.ImportStateBytes("bytes/", file, options);
  ASSERT_TRUE(of_bytes.ok()) << of_bytes.status();
  EXPECT_EQ(sent, static_cast<int64_t>(file.size()));
  EXPECT_EQ(all, sent);
  const auto of_file = client_.ImportState("file/", path, options);
  std::filesystem::remove(path);
  ASSERT_TRUE(of_file.ok()) << of_file.status();
  EXPECT_EQ(of_file->layers[1].name, "file/b.c");
  EXPECT_EQ(of_file->layers[1].action, ImportAction::kCreated);
  EXPECT_EQ(of_file->layers[1].num_batches_tracked, 9);
  const auto session = client_.Attach("file/b.c").Describe();
  ASSERT_TRUE(session.ok()) << session.status();
  EXPECT_EQ(session->mode, Mode::kEval);
  EXPECT_EQ(session->config.epsilon, 0.5);
  EXPECT_THAT(session->statistics->running_var, ElementsAre(3, 4));
  for (const char* model : {"bytes", "file"}) EXPECT_EQ(client_.AttachModel(model).Export()->file, file);
}

TEST_F(CheckpointClient, ErrorsAreTheServersAndTheSystems) {
  const std::string file = MakeFile();
  const auto exists = client_.ImportStateBytes("net/", file);
  EXPECT_EQ(exists.status().code(), absl::StatusCode::kAlreadyExists) << exists.status();
  EXPECT_EQ(GetErrorInfo(exists.status())->reason, "SESSION_EXISTS");
  const auto skipped = client_.ImportStateBytes("net/", file, {.existing = ExistingSession::kSkip});
  ASSERT_TRUE(skipped.ok()) << skipped.status();
  EXPECT_EQ(skipped->layers[0].action, ImportAction::kSkipped);
  // The server ends the call at the first piece, with most of the file still to be sent.
  const auto bad = client_.ImportStateBytes("bad/", std::string(5'000'000, 'x'));
  EXPECT_EQ(bad.status().code(), absl::StatusCode::kInvalidArgument) << bad.status();
  EXPECT_EQ(client_.ImportState("bad/", "/no/such/file").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(client_.AttachModel("none").Export().status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(client_.Attach("net/a").Export({.convention = Convention::kKeras}).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST_F(CheckpointClient, LayersGoIntoACheckpointAndNothingElseChanges) {
  const std::string file = MakeFile();
  EXPECT_EQ(*MergeIntoCheckpoint(file, file), file);
  ASSERT_TRUE(client_.Attach("net/a").SetParameters({.weight = {8, 9}}).ok());
  const auto changed = client_.AttachModel("net").Export();
  const auto merged = MergeIntoCheckpoint(changed->file, file);
  ASSERT_TRUE(merged.ok()) << merged.status();
  EXPECT_EQ(*merged, changed->file);
  EXPECT_NE(*merged, file);
  // Of another model; cut off; nothing.
  const auto alone = client_.Attach("net/a").Export();
  EXPECT_THAT(std::string(MergeIntoCheckpoint(alone->file, file).status().message()), HasSubstr("no tensor"));
  for (size_t size = 0; size < file.size(); ++size) {
    EXPECT_FALSE(MergeIntoCheckpoint(file, file.substr(0, size)).ok()) << size;
  }
}

}  // namespace
}  // namespace normserve::client
