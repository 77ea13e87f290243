#include "tests/fault/fault_disk.h"

#include <algorithm>
#include <cstring>

namespace normserve {
namespace {

constexpr int64_t kSectorBytes = 512;

// A moment between 0 (the last sync) and `changes` (now); the ends are as likely as all between.
size_t AnyMoment(std::mt19937_64& random, size_t changes) {
  switch (random() % 3) {
    case 0:
      return 0;
    case 1:
      return changes;
    default:
      return random() % (changes + 1);
  }
}

}  // namespace

void FaultFile::Write(int64_t offset, const char* data, size_t size_bytes) {
  if (bytes_.size() < offset + size_bytes) bytes_.resize(offset + size_bytes, '\0');
  std::memcpy(bytes_.data() + offset, data, size_bytes);
  unsynced_.push_back({.offset = offset, .bytes = std::string(data, size_bytes)});
}

void FaultFile::Truncate(int64_t size_bytes) {
  bytes_.resize(size_bytes, '\0');
  unsynced_.push_back({.offset = size_bytes, .truncates = true});
}

void FaultFile::Sync() {
  for (const Change& change : unsynced_) {
    const size_t end = change.offset + change.bytes.size();
    if (change.truncates || durable_.size() < end) durable_.resize(end, '\0');
    std::memcpy(durable_.data() + change.offset, change.bytes.data(), change.bytes.size());
  }
  unsynced_.clear();
}

std::string FaultFile::AfterPowerLoss(std::mt19937_64& random, bool all_lost) const {
  if (all_lost || unsynced_.empty()) return durable_;
  size_t most_bytes = durable_.size();
  for (const Change& change : unsynced_) most_bytes = std::max(most_bytes, change.offset + change.bytes.size());
  const size_t sectors = most_bytes / kSectorBytes + 1;
  // The moment whose content each sector has, and whether the change after that moment was under way in it.
  std::vector<size_t> moments(sectors);
  std::vector<bool> torn(sectors);
  for (size_t sector = 0; sector < sectors; ++sector) {
    moments[sector] = AnyMoment(random, unsynced_.size());
    torn[sector] = random() % 4 == 0;
  }
  const size_t size_moment = AnyMoment(random, unsynced_.size());

  std::string left = durable_;
  left.resize(sectors * kSectorBytes, '\0');
  size_t size_bytes = durable_.size();
  for (size_t i = 0; i < unsynced_.size(); ++i) {
    const Change& change = unsynced_[i];
    if (change.truncates) {
      if (i >= size_moment) continue;
      size_bytes = change.offset;
      std::fill(left.begin() + change.offset, left.end(), '\0');
      continue;
    }
    const int64_t end = change.offset + change.bytes.size();
    if (i < size_moment) size_bytes = std::max<size_t>(size_bytes, end);
    for (int64_t begin = change.offset; begin < end;) {
      const int64_t sector = begin / kSectorBytes;
      const int64_t sector_end = std::min((sector + 1) * kSectorBytes, end);
      int64_t part = sector_end - begin;
      if (i == moments[sector] && torn[sector]) {
        part = random() % (part + 1);
      } else if (i >= moments[sector]) {
        part = 0;
      }
      std::memcpy(left.data() + begin, change.bytes.data() + (begin - change.offset), part);
      begin = sector_end;
    }
  }
  left.resize(size_bytes, '\0');
  return left;
}

std::shared_ptr<FaultFile> FaultDisk::Find(const std::string& path) const {
  const auto found = files_.find(path);
  return found == files_.end() ? nullptr : found->second;
}

std::shared_ptr<FaultFile> FaultDisk::Create(const std::string& path) {
  auto file = std::make_shared<FaultFile>();
  files_[path] = file;
  unsynced_.push_back({path, file});
  return file;
}

void FaultDisk::Remove(const std::string& path) {
  files_.erase(path);
  unsynced_.push_back({path, nullptr});
}

void FaultDisk::SyncDirectory() {
  durable_ = files_;
  unsynced_.clear();
}

FaultDisk FaultDisk::AfterKill() const {
  FaultDisk left;
  for (const auto& [path, file] : files_) {
    const auto copy = left.Create(path);
    copy->Write(0, file->bytes().data(), file->bytes().size());
    copy->Sync();
  }
  left.SyncDirectory();
  return left;
}

FaultDisk FaultDisk::AfterPowerLoss(uint64_t seed) const {
  std::mt19937_64 random(seed);
  Files files = durable_;
  std::map<std::string, size_t> moments;  // by path: how many of all changes it has seen
  for (size_t i = 0; seed != 0 && i < unsynced_.size(); ++i) {
    const auto& [path, file] = unsynced_[i];
    const auto [moment, first] = moments.try_emplace(path, 0);
    if (first) moment->second = AnyMoment(random, unsynced_.size());
    if (i >= moment->second) continue;
    if (file == nullptr) {
      files.erase(path);
    } else {
      files[path] = file;
    }
  }
  FaultDisk left;
  for (const auto& [path, file] : files) {
    const std::string bytes = file->AfterPowerLoss(random, seed == 0);
    const auto copy = left.Create(path);
    copy->Write(0, bytes.data(), bytes.size());
    copy->Sync();
  }
  left.SyncDirectory();
  return left;
}

}  // namespace normserve
