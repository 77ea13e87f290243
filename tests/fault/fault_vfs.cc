#include "tests/fault/fault_vfs.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <new>
#include <thread>

namespace normserve {
namespace {

constexpr FaultKind kKinds[] = {FaultKind::kPowerOff, FaultKind::kIoError, FaultKind::kFull, FaultKind::kShortWrite,
                                FaultKind::kSyncError};

std::string NextName() {
  static std::atomic<int> number = 0;
  return "fault-" + std::to_string(++number);
}

}  // namespace

// SQLite's callbacks. Each file handle is one of these, made in the memory that SQLite gives.
struct FaultHandle {
  using Call = FaultVfs::Call;

  sqlite3_file base;  // first: SQLite knows this part
  FaultVfs* vfs;
  std::string path;
  std::shared_ptr<FaultFile> file;
  bool syncs_directory;   // with its first sync, as the Unix VFS does for a journal it may have made
  bool removes;           // its file when it is closed
  int64_t failures_told;  // of its file's syncs
  int lock = SQLITE_LOCK_NONE;
  std::shared_ptr<FaultVfs::SharedMemory> memory;

  static FaultHandle& Of(sqlite3_file* file) { return *reinterpret_cast<FaultHandle*>(file); }
  static FaultVfs& Of(sqlite3_vfs* vfs) { return *static_cast<FaultVfs*>(vfs->pAppData); }

  // ---- A file

  static int Close(sqlite3_file* handle) {
    FaultHandle& self = Of(handle);
    ShmUnmap(handle, 0);
    Unlock(handle, SQLITE_LOCK_NONE);
    if (self.removes) {
      std::lock_guard lock(self.vfs->mu_);
      if (!self.path.empty()) self.vfs->disk_.Remove(self.path);
    }
    self.~FaultHandle();
    return SQLITE_OK;
  }

  static int Read(sqlite3_file* handle, void* data, int size, sqlite3_int64 offset) {
    FaultHandle& self = Of(handle);
    std::lock_guard lock(self.vfs->mu_);
    if (const int code = self.vfs->Enter(Call::kRead); code != SQLITE_OK) return code;
    const std::string& bytes = self.file->bytes();
    const size_t wanted = size;
    std::memset(data, 0, wanted);
    const size_t begin = std::min<size_t>(offset, bytes.size());
    const size_t there = bytes.copy(static_cast<char*>(data), wanted, begin);
    return there == wanted ? SQLITE_OK : SQLITE_IOERR_SHORT_READ;
  }

  static int Write(sqlite3_file* handle, const void* data, int size, sqlite3_int64 offset) {
    FaultHandle& self = Of(handle);
    std::lock_guard lock(self.vfs->mu_);
    FaultKind with = FaultKind::kFull;
    const int code = self.vfs->Enter(Call::kWrite, &with);
    const bool half = with == FaultKind::kShortWrite;
    if (code == SQLITE_OK || half) self.file->Write(offset, static_cast<const char*>(data), half ? size / 2 : size);
    return code;
  }

  static int Truncate(sqlite3_file* handle, sqlite3_int64 size) {
    FaultHandle& self = Of(handle);
    std::lock_guard lock(self.vfs->mu_);
    const int code = self.vfs->Enter(Call::kTruncate);
    if (code == SQLITE_OK) self.file->Truncate(size);
    return code;
  }

  static int Sync(sqlite3_file* handle, int) {
    FaultHandle& self = Of(handle);
    std::function<void()> hook;
    {
      std::lock_guard lock(self.vfs->mu_);
      hook = self.vfs->on_sync_;
    }
    if (hook) hook();
    std::lock_guard lock(self.vfs->mu_);
    FaultKind with = FaultKind::kSyncError;
    if (const int code = self.vfs->Enter(Call::kSync, &with); code != SQLITE_OK) {
      if (with != FaultKind::kPowerOff) self.file->FailToSync();
      self.failures_told = self.file->num_failures();
      return code;
    }
    if (self.failures_told != self.file->num_failures()) {
      self.failures_told = self.file->num_failures();
      return SQLITE_IOERR_FSYNC;
    }
    if (self.vfs->lies_) return SQLITE_OK;
    self.file->Sync();
    if (self.syncs_directory) self.vfs->disk_.SyncDirectory();
    self.syncs_directory = false;
    return SQLITE_OK;
  }

  static int FileSize(sqlite3_file* handle, sqlite3_int64* size) {
    FaultHandle& self = Of(handle);
    std::lock_guard lock(self.vfs->mu_);
    *size = self.file->bytes().size();
    return self.vfs->Enter(Call::kSize);
  }

  static int Lock(sqlite3_file* handle, int level) {
    FaultHandle& self = Of(handle);
    std::lock_guard lock(self.vfs->mu_);
    FaultVfs::Locks& locks = self.vfs->locks_[self.path];
    if (self.lock >= level) return SQLITE_OK;
    if (level == SQLITE_LOCK_SHARED) {
      if (locks.pending != nullptr) return SQLITE_BUSY;
      ++locks.shared;
    } else if (level == SQLITE_LOCK_RESERVED) {
      if (locks.reserved != nullptr) return SQLITE_BUSY;
      locks.reserved = &self;
    } else {
      if (locks.pending != nullptr && locks.pending != &self) return SQLITE_BUSY;
      if (locks.reserved != nullptr && locks.reserved != &self) return SQLITE_BUSY;
      locks.pending = &self;
      self.lock = SQLITE_LOCK_PENDING;
      if (locks.shared > 1) return SQLITE_BUSY;
    }
    self.lock = level;
    return SQLITE_OK;
  }

  static int Unlock(sqlite3_file* handle, int level) {
    FaultHandle& self = Of(handle);
    std::lock_guard lock(self.vfs->mu_);
    if (self.lock <= level) return SQLITE_OK;
    FaultVfs::Locks& locks = self.vfs->locks_[self.path];
    if (locks.reserved == &self) locks.reserved = nullptr;
    if (locks.pending == &self) locks.pending = nullptr;
    if (level == SQLITE_LOCK_NONE) --locks.shared;
    self.lock = level;
    return SQLITE_OK;
  }

  static int CheckReservedLock(sqlite3_file* handle, int* reserved) {
    FaultHandle& self = Of(handle);
    std::lock_guard lock(self.vfs->mu_);
    *reserved = self.vfs->locks_[self.path].reserved != nullptr;
    return SQLITE_OK;
  }

  static int FileControl(sqlite3_file*, int, void*) { return SQLITE_NOTFOUND; }
  static int SectorSize(sqlite3_file*) { return 4096; }
  static int DeviceCharacteristics(sqlite3_file*) { return SQLITE_IOCAP_POWERSAFE_OVERWRITE; }

  // ---- Its shared memory

  static int ShmMap(sqlite3_file* handle, int region, int size, int extend, void volatile** address) {
    FaultHandle& self = Of(handle);
    std::lock_guard lock(self.vfs->mu_);
    *address = nullptr;
    if (const int code = self.vfs->Enter(Call::kSharedMemory); code != SQLITE_OK) return code;
    if (self.memory == nullptr) {
      auto& kept = self.vfs->shared_memory_[self.path];
      self.memory = kept.lock();
      if (self.memory == nullptr) kept = self.memory = std::make_shared<FaultVfs::SharedMemory>();
    }
    auto& regions = self.memory->regions;
    while (static_cast<int>(regions.size()) <= region) {
      if (!extend) return SQLITE_OK;
      regions.push_back(std::make_unique<char[]>(size));
    }
    *address = regions[region].get();
    return SQLITE_OK;
  }

  static int ShmLock(sqlite3_file* handle, int first, int count, int flags) {
    FaultHandle& self = Of(handle);
    std::lock_guard lock(self.vfs->mu_);
    FaultVfs::SharedMemory& memory = *self.memory;
    const bool shared = (flags & SQLITE_SHM_SHARED) != 0;
    for (int i = first; i < first + count && (flags & SQLITE_SHM_LOCK) != 0; ++i) {
      if (memory.exclusive[i] != nullptr || (!shared && memory.shared[i] > 0)) return SQLITE_BUSY;
    }
    for (int i = first; i < first + count; ++i) {
      if ((flags & SQLITE_SHM_LOCK) != 0) {
        if (shared) {
          ++memory.shared[i];
        } else {
          memory.exclusive[i] = &self;
        }
      } else if (shared) {
        --memory.shared[i];
      } else if (memory.exclusive[i] == &self) {
        memory.exclusive[i] = nullptr;
      }
    }
    return SQLITE_OK;
  }

  static void ShmBarrier(sqlite3_file*) { std::atomic_thread_fence(std::memory_order_seq_cst); }

  static int ShmUnmap(sqlite3_file* handle, int) {
    FaultHandle& self = Of(handle);
    std::lock_guard lock(self.vfs->mu_);
    self.memory = nullptr;
    return SQLITE_OK;
  }

  // ---- The disk

  static int Open(sqlite3_vfs* vfs, const char* path, sqlite3_file* handle, int flags, int* out_flags) {
    static const sqlite3_io_methods methods = {2,
                                               Close,
                                               Read,
                                               Write,
                                               Truncate,
                                               Sync,
                                               FileSize,
                                               Lock,
                                               Unlock,
                                               CheckReservedLock,
                                               FileControl,
                                               SectorSize,
                                               DeviceCharacteristics,
                                               ShmMap,
                                               ShmLock,
                                               ShmBarrier,
                                               ShmUnmap};
    FaultVfs& self = Of(vfs);
    handle->pMethods = nullptr;
    std::lock_guard lock(self.mu_);
    if (const int code = self.Enter(Call::kOpen); code != SQLITE_OK) return code;
    std::shared_ptr<FaultFile> file;
    if (path == nullptr) {
      file = std::make_shared<FaultFile>();
    } else {
      file = self.disk_.Find(path);
      if (file == nullptr && (flags & SQLITE_OPEN_CREATE) == 0) return SQLITE_CANTOPEN;
      if (file == nullptr) file = self.disk_.Create(path);
    }
    const bool journal = (flags & (SQLITE_OPEN_WAL | SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_SUPER_JOURNAL)) != 0;
    const int64_t failures_told = file->num_failures();
    new (handle) FaultHandle{.base = {&methods},
                             .vfs = &self,
                             .path = path == nullptr ? "" : path,
                             .file = std::move(file),
                             .syncs_directory = journal && (flags & SQLITE_OPEN_CREATE) != 0,
                             .removes = (flags & SQLITE_OPEN_DELETEONCLOSE) != 0,
                             .failures_told = failures_told};
    if (out_flags != nullptr) *out_flags = flags;
    return SQLITE_OK;
  }

  static int Delete(sqlite3_vfs* vfs, const char* path, int sync_directory) {
    FaultVfs& self = Of(vfs);
    std::lock_guard lock(self.mu_);
    if (const int code = self.Enter(Call::kDelete); code != SQLITE_OK) return code;
    if (self.disk_.Find(path) == nullptr) return SQLITE_IOERR_DELETE_NOENT;
    self.disk_.Remove(path);
    if (sync_directory && !self.lies_) self.disk_.SyncDirectory();
    return SQLITE_OK;
  }

  static int Access(sqlite3_vfs* vfs, const char* path, int flags, int* result) {
    FaultVfs& self = Of(vfs);
    std::lock_guard lock(self.mu_);
    *result = 0;
    if (const int code = self.Enter(Call::kAccess); code != SQLITE_OK) return code;
    const auto file = self.disk_.Find(path);
    // As the Unix VFS: an empty file does not exist.
    *result = file != nullptr && (flags != SQLITE_ACCESS_EXISTS || !file->bytes().empty());
    return SQLITE_OK;
  }

  static int FullPathname(sqlite3_vfs*, const char* path, int size, char* full) {
    sqlite3_snprintf(size, full, "%s", path);
    return SQLITE_OK;
  }
  static int Randomness(sqlite3_vfs*, int size, char* bytes) {
    sqlite3_vfs* unix_vfs = sqlite3_vfs_find(nullptr);
    return unix_vfs->xRandomness(unix_vfs, size, bytes);
  }
  // Waiting for a lock counts the time asked for, not the time that passes.
  static int Sleep(sqlite3_vfs*, int microseconds) {
    std::this_thread::yield();
    return microseconds;
  }
  static int CurrentTime(sqlite3_vfs*, double* time) {
    sqlite3_vfs* unix_vfs = sqlite3_vfs_find(nullptr);
    return unix_vfs->xCurrentTime(unix_vfs, time);
  }
  static int LastError(sqlite3_vfs*, int, char*) { return 0; }
};

FaultVfs::FaultVfs(FaultDisk disk) : name_(NextName()), disk_(std::move(disk)) {
  vfs_.iVersion = 1;
  vfs_.szOsFile = sizeof(FaultHandle);
  vfs_.mxPathname = 512;
  vfs_.zName = name_.c_str();
  vfs_.pAppData = this;
  vfs_.xOpen = FaultHandle::Open;
  vfs_.xDelete = FaultHandle::Delete;
  vfs_.xAccess = FaultHandle::Access;
  vfs_.xFullPathname = FaultHandle::FullPathname;
  vfs_.xRandomness = FaultHandle::Randomness;
  vfs_.xSleep = FaultHandle::Sleep;
  vfs_.xCurrentTime = FaultHandle::CurrentTime;
  vfs_.xGetLastError = FaultHandle::LastError;
  sqlite3_vfs_register(&vfs_, 0);
}

FaultVfs::~FaultVfs() { sqlite3_vfs_unregister(&vfs_); }

bool FaultVfs::CanBefall(FaultKind kind, Call call) {
  switch (kind) {
    case FaultKind::kPowerOff:
    case FaultKind::kIoError:
      return true;
    case FaultKind::kFull:
      return call == Call::kWrite || call == Call::kTruncate;
    case FaultKind::kShortWrite:
      return call == Call::kWrite;
    case FaultKind::kSyncError:
      return call == Call::kSync;
  }
  return false;
}

int FaultVfs::Enter(Call call, FaultKind* with) {
  bool fails = false;
  FaultKind fault = FaultKind::kIoError;
  for (const FaultKind kind : kKinds) {
    if (!CanBefall(kind, call)) continue;
    const int64_t number = ++calls_[kind];
    const bool now = nth_ > 0 && kind == kind_ && (number == nth_ || (stays_ && number > nth_));
    if (fails || (!now && !on_[kind])) continue;
    fails = true;
    fault = kind;
  }
  if (!fails) return SQLITE_OK;
  if (with != nullptr) *with = fault;
  if (fault == FaultKind::kFull || fault == FaultKind::kShortWrite) return SQLITE_FULL;
  constexpr int kErrors[] = {SQLITE_IOERR_READ,   SQLITE_IOERR_WRITE, SQLITE_IOERR_TRUNCATE,
                             SQLITE_IOERR_FSYNC,  SQLITE_CANTOPEN,    SQLITE_IOERR_DELETE,
                             SQLITE_IOERR_ACCESS, SQLITE_IOERR_FSTAT, SQLITE_IOERR_SHMMAP};
  return kErrors[static_cast<int>(call)];
}

int64_t FaultVfs::calls(FaultKind kind) const {
  std::lock_guard lock(mu_);
  const auto found = calls_.find(kind);
  return found == calls_.end() ? 0 : found->second;
}

void FaultVfs::Inject(FaultKind kind, int64_t nth, bool stays) {
  std::lock_guard lock(mu_);
  kind_ = kind;
  nth_ = nth;
  stays_ = stays || kind == FaultKind::kPowerOff;
}

void FaultVfs::Set(FaultKind kind, bool on) {
  std::lock_guard lock(mu_);
  on_[kind] = on;
}

void FaultVfs::LieAboutSyncs() {
  std::lock_guard lock(mu_);
  lies_ = true;
}

void FaultVfs::OnSync(std::function<void()> hook) {
  std::lock_guard lock(mu_);
  on_sync_ = std::move(hook);
}

FaultDisk FaultVfs::AfterKill() const {
  std::lock_guard lock(mu_);
  return disk_.AfterKill();
}

FaultDisk FaultVfs::AfterPowerLoss(uint64_t seed) const {
  std::lock_guard lock(mu_);
  return disk_.AfterPowerLoss(seed);
}

int64_t FaultVfs::SizeOf(const std::string& path) const {
  std::lock_guard lock(mu_);
  const auto file = disk_.Find(path);
  return file == nullptr ? -1 : static_cast<int64_t>(file->bytes().size());
}

}  // namespace normserve
