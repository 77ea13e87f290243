// A VFS for SQLite over a FaultDisk, whose calls fail as a test says.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "sqlite3.h"
#include "tests/fault/fault_disk.h"

namespace normserve {

// What goes wrong at a call.
enum class FaultKind {
  kPowerOff,    // it and all after it do nothing and fail
  kIoError,     // any call fails and does nothing
  kFull,        // a write or truncation finds the disk full
  kShortWrite,  // a write does half its work, then fails
  kSyncError,   // a sync fails: what it was for is lost when the power goes
};

// Registered with SQLite under a name of its own while it lives; connections that use it are closed before. Locks and
// shared memory are those of this process. Thread-safe.
class FaultVfs {
 public:
  explicit FaultVfs(FaultDisk disk = {});
  ~FaultVfs();
  FaultVfs(const FaultVfs&) = delete;
  FaultVfs& operator=(const FaultVfs&) = delete;

  const std::string& name() const { return name_; }

  // Calls so far, all and those that a kind of fault can befall.
  int64_t calls(FaultKind kind) const;

  // The `nth` call (from 1, counted since the VFS was made) of those that `kind` can befall fails; `stays`: and so do
  // all after it.
  void Inject(FaultKind kind, int64_t nth, bool stays);
  // From now on, or no longer.
  void Set(FaultKind kind, bool on);
  // Syncs say that they succeeded and do nothing.
  void LieAboutSyncs();
  // Called before every sync, on its thread, with no lock held.
  void OnSync(std::function<void()> hook);

  FaultDisk AfterKill() const;
  FaultDisk AfterPowerLoss(uint64_t seed) const;
  // Bytes of the file as written; -1: there is none.
  int64_t SizeOf(const std::string& path) const;

 private:
  friend struct FaultHandle;

  enum class Call { kRead, kWrite, kTruncate, kSync, kOpen, kDelete, kAccess, kSize, kSharedMemory };
  struct Locks {
    int shared = 0;
    const void* reserved = nullptr;
    const void* pending = nullptr;
  };
  struct SharedMemory {
    std::vector<std::unique_ptr<char[]>> regions;
    std::array<int, SQLITE_SHM_NLOCK> shared = {};
    std::array<const void*, SQLITE_SHM_NLOCK> exclusive = {};
  };

  static bool CanBefall(FaultKind kind, Call call);
  // Counts a call; SQLITE_OK or the error it gives, and with what kind of fault. Under mu_.
  int Enter(Call call, FaultKind* with = nullptr);

  const std::string name_;
  sqlite3_vfs vfs_ = {};

  mutable std::mutex mu_;
  FaultDisk disk_;
  std::map<std::string, Locks> locks_;
  std::map<std::string, std::weak_ptr<SharedMemory>> shared_memory_;
  std::map<FaultKind, int64_t> calls_;
  FaultKind kind_ = FaultKind::kIoError;
  int64_t nth_ = 0;
  bool stays_ = false;
  std::map<FaultKind, bool> on_;
  bool lies_ = false;
  std::function<void()> on_sync_;
};

}  // namespace normserve
