// The store under a disk that fails, fills up and loses power: at every call of a scenario.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdio>
#include <latch>
#include <memory>

#include "absl/strings/match.h"
#include "server/store/sqlite_store.h"
#include "tests/fault/fault_vfs.h"
#include "tests/fault/store_scenario.h"
#include "tests/unit/server/status_matchers.h"
#include "tests/unit/store/scratch_directory.h"
#include "tests/unit/store/store_calls.h"

namespace normserve {
namespace {

const char* Name(FaultKind kind) {
  switch (kind) {
    case FaultKind::kPowerOff:
      return "power off";
    case FaultKind::kIoError:
      return "I/O error";
    case FaultKind::kFull:
      return "disk full";
    case FaultKind::kShortWrite:
      return "short write";
    case FaultKind::kSyncError:
      return "failed sync";
  }
  return "";
}

class StoreFaultTest : public ::testing::Test {
 protected:
  // Small, so that a scenario has checkpoints.
  absl::StatusOr<std::unique_ptr<SqliteStore>> Open(const FaultVfs& vfs, int64_t checkpoint_bytes = 40000) {
    return SqliteStore::Open({.directory = directory_.path(),
                              .vfs = vfs.name(),
                              .checkpoint_bytes = checkpoint_bytes,
                              .warn = [](const std::string&) {}});
  }

  // Both halves, each over a store that is opened and closed.
  void Run(FaultVfs& vfs, StoreScenario& scenario) {
    for (int half = 0; half < 2; ++half) {
      auto store = Open(vfs);
      if (!store.ok()) return;
      const absl::Status status = scenario.RunHalf(**store, half);
      EXPECT_FALSE(absl::IsInternal(status)) << status;
      if (!status.ok()) return;
      // What is in the store while it works: refused writes are not.
      const auto contents = ReadContents(**store);
      if (contents.ok() && scenario.num_refused() == 0) {
        EXPECT_EQ(contents->Text(), scenario.acknowledged().Text());
      }
    }
  }

  // "" or what is wrong with what `disk` holds after `scenario` met its fate.
  std::string Judge(FaultDisk disk, StoreScenario scenario) {
    FaultVfs vfs(std::move(disk));
    {
      auto store = Open(vfs);
      if (!store.ok()) return absl::StrCat("does not open: ", store.status().ToString());
      const auto contents = ReadContents(**store);
      if (!contents.ok()) return absl::StrCat("cannot be read: ", contents.status().ToString());
      if (const absl::Status status = scenario.Check(*contents); !status.ok()) return std::string(status.message());
      for (StoreWrite& write : scenario.FollowingWrites(*contents)) {
        const absl::Status status = Put(**store, std::move(write));
        if (!status.ok()) return absl::StrCat("takes no more writes: ", status.ToString());
      }
    }
    return CheckIntegrity(vfs);
  }

  std::string CheckIntegrity(FaultVfs& vfs) {
    auto connection = SqliteConnection::Open(directory_.file("normserve.db"), vfs.name(), SQLITE_OPEN_READWRITE);
    if (!connection.ok()) return connection.status().ToString();
    auto statement = SqliteStatement::Prepare(**connection, "PRAGMA integrity_check");
    if (!statement.ok()) return statement.status().ToString();
    SqliteStatement::Run run(*statement);
    run.Step();
    return run.BytesAt(0) == "ok" ? "" : absl::StrCat("integrity check: ", run.BytesAt(0));
  }

  // The scenario once for every call that `kind` can befall; what is left after power loss, or after a kill of the
  // process where writes ask for COMMIT, is judged.
  void FailAtEveryCall(FaultKind kind, bool stays, Durability durability) {
    int64_t calls = 0;
    {
      FaultVfs vfs;
      StoreScenario scenario(durability);
      Run(vfs, scenario);
      ASSERT_EQ(scenario.num_refused(), 0);
      calls = vfs.calls(kind);
    }
    int64_t judged = 0;
    int64_t refused = 0;
    for (int64_t call = 1; call <= calls; ++call) {
      FaultVfs vfs;
      vfs.Inject(kind, call, stays);
      StoreScenario scenario(durability);
      Run(vfs, scenario);
      refused += scenario.num_refused();
      const auto judge = [&](FaultDisk disk, const std::string& fate) {
        ++judged;
        const std::string verdict = Judge(std::move(disk), scenario);
        EXPECT_EQ(verdict, "") << Name(kind) << (stays ? " from" : " at") << " call " << call << " of " << calls
                               << ", then " << fate;
      };
      if (durability == Durability::kCommit) {
        judge(vfs.AfterKill(), "kill");
      } else {
        // All that was not synced is lost, or what chance leaves.
        for (int64_t seed = 0; seed <= call; seed += call) {
          judge(vfs.AfterPowerLoss(seed), absl::StrCat("power loss ", seed));
        }
      }
      if (HasFailure()) return;
    }
    EXPECT_GT(refused, 0) << "the fault never met a write";
    std::printf("%s%s, %s: %lld calls, %lld crashes judged, %lld writes refused\n", Name(kind),
                stays ? " from then on" : "",
                durability == Durability::kCommit ? "COMMIT and kill" : "FLUSH and power loss",
                static_cast<long long>(calls), static_cast<long long>(judged), static_cast<long long>(refused));
  }

  ScratchDirectory directory_;  // of the lock file
};

TEST_F(StoreFaultTest, FlushedWritesSurvivePowerLossAtEveryCall) {
  FailAtEveryCall(FaultKind::kPowerOff, true, Durability::kFlush);
}

TEST_F(StoreFaultTest, CommittedWritesSurviveAKillAtEveryCall) {
  FailAtEveryCall(FaultKind::kPowerOff, true, Durability::kCommit);
}

TEST_F(StoreFaultTest, FlushedWritesSurviveAnIoErrorAtEveryCall) {
  FailAtEveryCall(FaultKind::kIoError, false, Durability::kFlush);
}

TEST_F(StoreFaultTest, FlushedWritesSurviveADiskThatFailsForGoodAtEveryCall) {
  FailAtEveryCall(FaultKind::kIoError, true, Durability::kFlush);
}

TEST_F(StoreFaultTest, FlushedWritesSurviveAFullDiskAtEveryWrite) {
  FailAtEveryCall(FaultKind::kFull, false, Durability::kFlush);
  FailAtEveryCall(FaultKind::kFull, true, Durability::kFlush);
}

TEST_F(StoreFaultTest, FlushedWritesSurviveAShortWriteAtEveryWrite) {
  FailAtEveryCall(FaultKind::kShortWrite, false, Durability::kFlush);
}

TEST_F(StoreFaultTest, FlushedWritesSurviveEveryFailedSync) {
  FailAtEveryCall(FaultKind::kSyncError, false, Durability::kFlush);
  FailAtEveryCall(FaultKind::kSyncError, true, Durability::kFlush);
}

TEST_F(StoreFaultTest, ADiskThatLiesAboutSyncsIsFoundOut) {
  FaultVfs vfs;
  vfs.LieAboutSyncs();
  StoreScenario scenario(Durability::kFlush);
  Run(vfs, scenario);
  ASSERT_EQ(scenario.num_refused(), 0);
  EXPECT_EQ(Judge(vfs.AfterKill(), scenario), "");
  EXPECT_NE(Judge(vfs.AfterPowerLoss(0), scenario), "");
}

TEST_F(StoreFaultTest, CommittedWritesAloneDoNotSurvivePowerLoss) {
  FaultVfs vfs;
  // No checkpoint, which syncs, comes in between.
  auto store = Open(vfs, /*checkpoint_bytes=*/16 << 20);
  ASSERT_TRUE(store.ok()) << store.status();
  StoreScenario scenario(Durability::kCommit);
  ASSERT_TRUE(scenario.RunHalf(**store, 0).ok());
  FaultDisk left = vfs.AfterPowerLoss(0);
  store->reset();
  EXPECT_THAT(Judge(std::move(left), scenario), ::testing::HasSubstr("acknowledged"));
}

TEST_F(StoreFaultTest, OnAFullDiskReadsAreServedAndWritesGoOnOnceThereIsSpace) {
  FaultVfs vfs;
  {
    auto store = Open(vfs);
    ASSERT_TRUE(store.ok()) << store.status();
    ASSERT_TRUE(Put(**store, Creation("a")).ok());
  }
  vfs.Set(FaultKind::kFull, true);
  auto store = Open(vfs);
  ASSERT_TRUE(store.ok()) << store.status();
  EXPECT_EQ((*store)->ListSessions()->front().epoch, 2) << "as it will be once it is owned";
  EXPECT_EQ((*store)->Load("a")->head.epoch, 2);
  const absl::Status refused = Put(**store, Change("a", 2, 2), Durability::kFlush);
  EXPECT_THAT(refused, Fails(absl::StatusCode::kUnavailable, ErrorReason::kStoreRefused));
  EXPECT_THAT(std::string(refused.message()),
              ::testing::AllOf(::testing::HasSubstr(directory_.file("normserve.db")),
                               ::testing::HasSubstr("database or disk is full"), ::testing::HasSubstr("free space")));
  EXPECT_EQ((*store)->Load("a")->head.sequence, 1);
  vfs.Set(FaultKind::kFull, false);
  EXPECT_TRUE(Put(**store, Change("a", 2, 2), Durability::kFlush).ok());
  EXPECT_EQ((*store)->Load("a")->head.epoch, 2);
  // Full again while it works.
  vfs.Set(FaultKind::kFull, true);
  EXPECT_FALSE(Put(**store, Change("a", 2, 3)).ok());
  EXPECT_EQ((*store)->ListSessions()->front().sequence, 2);
  vfs.Set(FaultKind::kFull, false);
  EXPECT_TRUE(Put(**store, Change("a", 2, 3)).ok());
}

TEST_F(StoreFaultTest, WhatFailsWhileAStoreIsTakenOverLeavesItsSessionsChangeable) {
  bool is_met = true;
  int64_t num_refused = 0;
  for (int64_t nth = 1; is_met; ++nth) {
    FaultVfs vfs;
    ASSERT_TRUE(Put(**Open(vfs), Creation("a")).ok());
    // Opened for reading alone, so that the first write takes it over.
    vfs.Set(FaultKind::kFull, true);
    const auto store = Open(vfs);
    ASSERT_TRUE(store.ok()) << store.status();
    const int64_t epoch = (*store)->Load("a")->head.epoch;
    vfs.Set(FaultKind::kFull, false);
    const int64_t call = vfs.calls(FaultKind::kIoError) + nth;
    vfs.Inject(FaultKind::kIoError, call, false);
    const absl::Status status = Put(**store, Change("a", epoch, 2));
    is_met = vfs.calls(FaultKind::kIoError) >= call;
    num_refused += !status.ok();
    // A failed sync is for a restart to judge.
    if (status.ok() || absl::StrContains(status.message(), "sync failed") ||
        absl::StrContains(status.message(), "SQLite error 1034")) {
      continue;
    }
    EXPECT_TRUE((*store)->Load("a").ok()) << "call " << nth << ": " << status;
    EXPECT_EQ((*store)->Load("a")->head.epoch, epoch) << "call " << nth << ": " << status;
    const absl::Status again = Put(**store, Change("a", epoch, 2));
    EXPECT_TRUE(again.ok()) << "call " << nth << ": " << status << ", then " << again;
  }
  EXPECT_GT(num_refused, 10);
}

TEST_F(StoreFaultTest, AFullDiskWithoutAStoreIsRefusedByName) {
  FaultVfs vfs;
  vfs.Set(FaultKind::kFull, true);
  const auto store = Open(vfs);
  EXPECT_THAT(store.status(), Fails(absl::StatusCode::kUnavailable, ErrorReason::kStoreRefused));
  EXPECT_THAT(std::string(store.status().message()), ::testing::HasSubstr(directory_.file("normserve.db")));
}

TEST_F(StoreFaultTest, AfterAFailedSyncNothingIsWrittenUntilARestart) {
  FaultVfs vfs;
  auto store = Open(vfs);
  ASSERT_TRUE(store.ok()) << store.status();
  ASSERT_TRUE(Put(**store, Creation("a"), Durability::kFlush).ok());
  vfs.Set(FaultKind::kSyncError, true);
  ASSERT_TRUE(Put(**store, Change("a", 1, 2)).ok());
  const absl::Status refused = Put(**store, Change("a", 1, 3), Durability::kFlush);
  EXPECT_THAT(refused, Fails(absl::StatusCode::kUnavailable, ErrorReason::kStoreRefused));
  EXPECT_THAT(std::string(refused.message()), ::testing::HasSubstr("restart the server"));
  vfs.Set(FaultKind::kSyncError, false);
  for (const Durability durability : {Durability::kCommit, Durability::kFlush}) {
    EXPECT_FALSE(Put(**store, Change("a", 1, 4), durability).ok());
    EXPECT_FALSE(Put(**store, Creation("b"), durability).ok());
  }
  EXPECT_TRUE((*store)->Load("a").ok());
  store->reset();
  store = Open(vfs);
  ASSERT_TRUE(store.ok()) << store.status();
  const int64_t sequence = (*store)->Load("a")->head.sequence;
  EXPECT_TRUE(Put(**store, Change("a", 2, sequence + 1), Durability::kFlush).ok());
}

// What a failed sync lost may be what makes a torn write good again.
TEST_F(StoreFaultTest, AfterAFailedSyncNotAByteIsWrittenNotEvenByClose) {
  FaultDisk killed;
  FaultDisk closed;
  {
    FaultVfs vfs;
    auto store = Open(vfs);
    ASSERT_TRUE(store.ok()) << store.status();
    ASSERT_TRUE(Put(**store, Creation("a"), Durability::kFlush).ok());
    ASSERT_TRUE(Put(**store, Change("a", 1, 2)).ok());
    killed = vfs.AfterKill();
    store->reset();
    closed = vfs.AfterKill();
    store = Open(vfs);
    ASSERT_TRUE(store.ok()) << store.status();
    vfs.Inject(FaultKind::kSyncError, vfs.calls(FaultKind::kSyncError) + 1, false);
    ASSERT_TRUE(Put(**store, Change("a", 2, 3)).ok());
    ASSERT_FALSE(Put(**store, Change("a", 2, 4), Durability::kFlush).ok());
    const int64_t writes = vfs.calls(FaultKind::kFull);
    store->reset();
    EXPECT_EQ(vfs.calls(FaultKind::kFull), writes);
  }
  // The same for each sync of a start.
  for (const FaultDisk* disk : {&killed, &closed}) {
    int num_failed = 0;
    for (bool failed = true; failed; num_failed += failed) {
      FaultVfs vfs(disk->AfterKill());
      vfs.Inject(FaultKind::kSyncError, num_failed + 1, false);
      int64_t writes = 0;
      int syncs = 0;
      vfs.OnSync([&] {
        if (++syncs == num_failed + 1) writes = vfs.calls(FaultKind::kFull);
      });
      const auto store = Open(vfs);
      failed = !store.ok();
      if (failed) {
        EXPECT_EQ(vfs.calls(FaultKind::kFull), writes) << num_failed;
      }
      vfs.OnSync(nullptr);
    }
    EXPECT_GT(num_failed, 0);
  }
}

TEST_F(StoreFaultTest, AFailedSyncOfACheckpointAlsoStopsWrites) {
  FaultVfs vfs;
  auto store = Open(vfs);
  ASSERT_TRUE(store.ok()) << store.status();
  ASSERT_TRUE(Put(**store, Creation("a")).ok());
  vfs.Set(FaultKind::kSyncError, true);
  // COMMIT writes ask for no sync; the checkpoint that the journal's size calls for does. The writer waits for it
  // before the journal has four times that size.
  absl::Status status;
  for (int64_t sequence = 2; status.ok() && sequence < 100; ++sequence) {
    SessionWrite change = Change("a", 1, sequence);
    change.current = {{VectorKind::kRunning, sequence, Pattern("r", 9000)}};
    status = Put(**store, change);
  }
  EXPECT_THAT(status, Fails(absl::StatusCode::kUnavailable, ErrorReason::kStoreRefused));
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("restart the server"));
}

TEST_F(StoreFaultTest, OneSyncReleasesAllThatWasCommittedBeforeItBeganWhileCommitsGoOn) {
  FaultVfs vfs;
  // No checkpoint, which syncs too, comes in between.
  auto store = Open(vfs, /*checkpoint_bytes=*/16 << 20);
  ASSERT_TRUE(store.ok()) << store.status();
  ASSERT_TRUE(Put(**store, Creation("first"), Durability::kFlush).ok());
  std::latch syncing(1);
  std::latch go_on(1);
  std::atomic<int> syncs = 0;
  vfs.OnSync([&] {
    if (++syncs == 1) {
      syncing.count_down();
      go_on.wait();
    }
  });
  auto first = StartWrite(**store, StoreWrite{.sessions = {Change("first", 1, 2)}, .durability = Durability::kFlush});
  syncing.wait();
  std::vector<std::future<absl::Status>> waiting;
  for (int i = 0; i < 20; ++i) {
    StoreWrite write{.durability = Durability::kFlush};
    write.sessions.push_back(Creation(absl::StrCat("u", i)));
    waiting.push_back(StartWrite(**store, std::move(write)));
  }
  EXPECT_TRUE(Put(**store, Creation("committed")).ok()) << "waited for somebody else's sync";
  go_on.count_down();
  EXPECT_TRUE(first.get().ok());
  for (auto& answer : waiting) EXPECT_TRUE(answer.get().ok());
  EXPECT_EQ(syncs, 2);
  vfs.OnSync(nullptr);
}

}  // namespace
}  // namespace normserve
