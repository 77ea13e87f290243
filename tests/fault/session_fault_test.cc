// Sessions over the store over a disk that fails, fills up and loses power: at the calls of a scenario.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/session/session_registry.h"
#include "server/store/sqlite_store.h"
#include "tests/fault/fault_vfs.h"
#include "tests/fault/session_scenario.h"
#include "tests/unit/store/scratch_directory.h"

namespace normserve {
namespace {

struct Fault {
  const char* name;
  FaultKind kind;
  bool stays = false;
  int64_t ends_after = 0;  // as many UNAVAILABLE, if it stays; 0: never
};

// A server without its network: a store and the sessions in it.
struct Server {
  std::unique_ptr<SqliteStore> store;
  std::unique_ptr<SessionRegistry> registry;
};

class SessionFaultTest : public ::testing::Test {
 protected:
  // Nothing if it cannot start.
  std::optional<Server> Start(FaultVfs& vfs) {
    auto store =
        SqliteStore::Open({.directory = directory_.path(), .vfs = vfs.name(), .checkpoint_bytes = checkpoint_bytes_});
    if (!store.ok()) return std::nullopt;
    auto registry = std::make_unique<SessionRegistry>(SessionLimits{}, store->get());
    const auto report = registry->Load();
    if (!report.ok()) return std::nullopt;
    EXPECT_TRUE(report->damaged.empty()) << absl::StrJoin(report->damaged, ", ");
    return Server{*std::move(store), std::move(registry)};
  }

  // Both halves, each on a server that is started, once more if need be. What is left if the power fails at the end of
  // it, before the server closes anything.
  std::vector<FaultDisk> Run(FaultVfs& vfs, SessionScenario& scenario, SessionReader& reader,
                             const std::vector<uint64_t>& seeds) {
    std::vector<FaultDisk> left;
    for (int half = 0; half < 2; ++half) {
      auto server = Start(vfs);
      if (!server.has_value()) server = Start(vfs);
      if (server.has_value()) {
        // At every sync, so before what it is for is durable.
        reader.Attach(server->registry.get());
        vfs.OnSync([&reader] { reader.Look(); });
        scenario.CheckWhatIsThere(*server->registry, reader.generations());
        scenario.RepeatAll(*server->registry);
        scenario.RunHalf(*server->registry, half);
        reader.Look();
        reader.Attach(nullptr);
        if (scenario.num_unknown() == 0) scenario.CompareWithModel(*server->registry);
      }
      vfs.OnSync(nullptr);
      if (half == 0) continue;
      for (const uint64_t seed : seeds) left.push_back(vfs.AfterPowerLoss(seed));
    }
    return left;
  }

  // "" or what is wrong with what is left of `scenario`.
  std::string Judge(FaultDisk disk, SessionScenario scenario, const SessionReader& reader) {
    FaultVfs vfs(std::move(disk));
    const auto server = Start(vfs);
    if (!server.has_value()) return "does not start";
    scenario.CheckWhatIsThere(*server->registry, reader.generations());
    scenario.RepeatAll(*server->registry);
    if (scenario.num_unknown() > 0) return "takes no more changes";
    scenario.CompareWithModel(*server->registry);
    return absl::StrJoin(scenario.broken_promises(), "\n");
  }

  int64_t CallsOf(FaultKind kind) {
    FaultVfs vfs;
    SessionScenario scenario(Durability::kFlush);
    SessionReader reader;
    Run(vfs, scenario, reader, {});
    EXPECT_EQ(scenario.num_refused(), 0);
    EXPECT_THAT(scenario.broken_promises(), ::testing::IsEmpty());
    return vfs.calls(kind);
  }

  // The scenario with the fault at every `stride`th call that it can befall; then the power goes: all that was not
  // synced is lost, or what chance leaves.
  void FailAtCalls(const Fault& fault, int64_t stride = 1) {
    const int64_t calls = CallsOf(fault.kind);
    int64_t runs = 0, judged = 0, refused = 0, unknown = 0;
    for (int64_t call = 1; call <= calls && !HasFailure(); call += stride) {
      FaultVfs vfs;
      vfs.Inject(fault.kind, call, fault.stays);
      SessionScenario scenario(Durability::kFlush);
      scenario.OnRefused([&](int64_t num_refused) {
        if (num_refused == fault.ends_after) vfs.Inject(fault.kind, 0, false);
      });
      SessionReader reader;
      const auto chance = static_cast<uint64_t>(call);
      std::vector<uint64_t> seeds = {0, chance};
      if (fault.kind != FaultKind::kPowerOff) seeds = {runs % 2 == 0 ? 0 : chance};
      std::vector<FaultDisk> left = Run(vfs, scenario, reader, seeds);
      ++runs;
      refused += scenario.num_refused();
      unknown += scenario.num_unknown();
      for (FaultDisk& disk : left) {
        ++judged;
        EXPECT_EQ(Judge(std::move(disk), scenario, reader), "")
            << fault.name << " at call " << call << " of " << calls << ", then power loss";
      }
      if (fault.kind == FaultKind::kFull && (!fault.stays || fault.ends_after > 0)) {
        EXPECT_EQ(scenario.num_unknown(), 0) << "call " << call << ": the disk has space again, changes go on";
      }
    }
    EXPECT_GT(refused, 0) << "the fault never met a change";
    std::printf("%s: %lld of %lld calls, %lld power losses judged, %lld answers UNAVAILABLE, %lld outcomes unknown\n",
                fault.name, static_cast<long long>(runs), static_cast<long long>(calls), static_cast<long long>(judged),
                static_cast<long long>(refused), static_cast<long long>(unknown));
  }

  ScratchDirectory directory_;        // of the lock file
  int64_t checkpoint_bytes_ = 40000;  // so small that a scenario has checkpoints
};

TEST_F(SessionFaultTest, FlushedSessionsSurvivePowerLossAtEveryCall) {
  FailAtCalls({.name = "power off", .kind = FaultKind::kPowerOff});
}

TEST_F(SessionFaultTest, FlushedSessionsSurviveAFullDiskAndGoOnOnceThereIsSpace) {
  FailAtCalls({.name = "disk full once", .kind = FaultKind::kFull});
  FailAtCalls({.name = "disk full for a while", .kind = FaultKind::kFull, .stays = true, .ends_after = 6}, 3);
  FailAtCalls({.name = "disk full from then on", .kind = FaultKind::kFull, .stays = true}, 3);
}

TEST_F(SessionFaultTest, FlushedSessionsSurviveIoErrors) {
  FailAtCalls({.name = "I/O error once", .kind = FaultKind::kIoError});
  FailAtCalls({.name = "I/O errors for a while", .kind = FaultKind::kIoError, .stays = true, .ends_after = 6}, 4);
  FailAtCalls({.name = "I/O errors from then on", .kind = FaultKind::kIoError, .stays = true}, 4);
}

TEST_F(SessionFaultTest, FlushedSessionsSurviveEveryFailedSync) {
  FailAtCalls({.name = "failed sync", .kind = FaultKind::kSyncError});
}

// What these tests must find out.
TEST_F(SessionFaultTest, SessionsThatAreOnlyCommittedAndADiskThatLiesAreFoundOut) {
  checkpoint_bytes_ = 16 << 20;  // whose syncs save what is only committed
  for (const bool lies : {false, true}) {
    FaultVfs vfs;
    if (lies) vfs.LieAboutSyncs();
    SessionScenario scenario(lies ? Durability::kFlush : Durability::kCommit);
    SessionReader reader;
    std::vector<FaultDisk> left = Run(vfs, scenario, reader, {0});
    EXPECT_EQ(scenario.num_refused(), 0);
    EXPECT_EQ(Judge(vfs.AfterKill(), scenario, reader), "");
    EXPECT_NE(Judge(std::move(left[0]), scenario, reader), "") << lies;
  }
}

}  // namespace
}  // namespace normserve
