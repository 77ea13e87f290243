// Sessions in a store that can be held back, restarted and damaged.
#pragma once

#include <gtest/gtest.h>
#include <sqlite3.h>

#include <cmath>
#include <memory>
#include <string>
#include <utility>

#include "server/session/session_registry.h"
#include "server/store/sqlite_store.h"
#include "tests/unit/server/answers.h"
#include "tests/unit/server/held_store.h"
#include "tests/unit/store/scratch_directory.h"

namespace normserve {

inline constexpr Fingerprint kPayload{.low = 1, .high = 2};

inline Moments SomeMoments(double seed, int64_t num_features = 2) {
  Moments moments{.count = 8, .num_samples = 4};
  for (int64_t c = 0; c < num_features; ++c) {
    moments.mean.push_back(seed / 3 + static_cast<double>(c));
    moments.m2.push_back(std::abs(seed) * 1.1 + 0.1 * static_cast<double>(c));
  }
  return moments;
}

class StoredSessionTest : public testing::Test {
 protected:
  void SetUp() override { Restart(); }

  // A crash as far as the sessions can tell: nothing is written that was not before.
  void Restart() {
    registry_.reset();
    held_.reset();
    store_.reset();
    auto opened = SqliteStore::Open({.directory = directory_.path()});
    ASSERT_TRUE(opened.ok()) << opened.status();
    store_ = *std::move(opened);
    held_ = std::make_unique<HeldStore>(*store_);
    registry_ = std::make_unique<SessionRegistry>(SessionLimits{}, held_.get());
    auto report = registry_->Load();
    ASSERT_TRUE(report.ok()) << report.status();
    report_ = *std::move(report);
  }

  std::shared_ptr<Session> Open(const std::string& name, Durability durability = Durability::kCommit) {
    EXPECT_TRUE(Create(*registry_, {.name = name, .config = {.num_features = 2}, .durability = durability}).ok());
    return Get(name);
  }

  std::shared_ptr<Session> Get(const std::string& name) {
    auto found = registry_->Find(name);
    EXPECT_TRUE(found.ok()) << found.status();
    return found.ok() ? *found : nullptr;
  }

  static absl::StatusOr<ForwardAnswer> Train(Session& session, double seed, const std::string& request_id = "",
                                             NormalizedWith with = NormalizedWith::kBatch,
                                             Update update = Update::kRunning) {
    return CommitForward(
        session, {.request_id = request_id}, kPayload,
        {.snapshot = session.Snapshot(), .moments = SomeMoments(seed), .normalized_with = with, .update = update});
  }

  // Runs SQL behind the store's back.
  void Sql(const std::string& statement) {
    sqlite3* database = nullptr;
    ASSERT_EQ(sqlite3_open((directory_.path() + "/normserve.db").c_str(), &database), SQLITE_OK);
    char* message = nullptr;
    EXPECT_EQ(sqlite3_exec(database, statement.c_str(), nullptr, nullptr, &message), SQLITE_OK) << message;
    sqlite3_close(database);
  }

  ScratchDirectory directory_;
  std::unique_ptr<StateStore> store_;
  std::unique_ptr<HeldStore> held_;
  std::unique_ptr<SessionRegistry> registry_;
  LoadReport report_;
};

}  // namespace normserve
