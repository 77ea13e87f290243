// A disk in memory that knows what a power loss would leave of it.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

namespace normserve {

// A file: what was written, and what of it is on the platter.
class FaultFile {
 public:
  void Write(int64_t offset, const char* data, size_t size_bytes);
  void Truncate(int64_t size_bytes);
  // Makes durable what was written since the last sync.
  void Sync();
  // A sync that fails: what was written since the last one can be read until the power goes, and is not on the platter,
  // nor will it be by later syncs. So Linux does it, which also tells it to everyone who has the file open, once.
  void FailToSync() {
    unsynced_.clear();
    ++num_failures_;
  }
  int64_t num_failures() const { return num_failures_; }

  const std::string& bytes() const { return bytes_; }

  // What is left of it. `all_lost`: nothing that was not synced. Else each sector has, independently, what was written
  // of it until any moment since the sync, or one torn between two such moments; and so has the size. A truncation is
  // one of the size: bytes go with it, or stay.
  std::string AfterPowerLoss(std::mt19937_64& random, bool all_lost) const;

 private:
  // The bytes at an offset, or without bytes a new size.
  struct Change {
    int64_t offset = 0;
    std::string bytes;
    bool truncates = false;
  };

  std::string bytes_;
  std::string durable_;
  std::vector<Change> unsynced_;
  int64_t num_failures_ = 0;
};

// Files by path. A path's creation or removal is durable only after a sync of its directory; there is one directory.
// Copies share nothing. Not thread-safe.
class FaultDisk {
 public:
  FaultDisk() = default;
  FaultDisk(FaultDisk&&) = default;
  FaultDisk& operator=(FaultDisk&&) = default;

  // Null: there is none.
  std::shared_ptr<FaultFile> Find(const std::string& path) const;
  std::shared_ptr<FaultFile> Create(const std::string& path);
  void Remove(const std::string& path);
  void SyncDirectory();

  // The disk after a kill of the process: all that was written. It is all durable then.
  FaultDisk AfterKill() const;
  // The disk after a power loss. `seed` 0: all that was not synced is lost; else chance decides for every sector, size
  // and path by itself.
  FaultDisk AfterPowerLoss(uint64_t seed) const;

 private:
  using Files = std::map<std::string, std::shared_ptr<FaultFile>>;
  struct Change {
    std::string path;
    std::shared_ptr<FaultFile> file;  // null: removed
  };

  Files files_;
  Files durable_;
  std::vector<Change> unsynced_;
};

}  // namespace normserve
