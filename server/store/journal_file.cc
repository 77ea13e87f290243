#include "server/store/journal_file.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>
#include <vector>

#include "server/store/sqlite_connection.h"

namespace normserve {
namespace {

// SQLite's Unix VFS writes less than 128 KiB in one call.
constexpr sqlite3_int64 kPieceBytes = 64 << 10;
constexpr sqlite3_int64 kHeaderBytes = 32, kFrameHeaderBytes = 24;
constexpr uint32_t kMagic = 0x377f0682;  // and a last bit that is 1 where checksums are of big-endian words

uint32_t BigEndian(const unsigned char* bytes) {
  return uint32_t{bytes[0]} << 24 | uint32_t{bytes[1]} << 16 | uint32_t{bytes[2]} << 8 | bytes[3];
}

// The running checksum of a journal.
class Checksum {
 public:
  explicit Checksum(bool big_endian) : big_endian_(big_endian) {}

  void Add(const unsigned char* bytes, size_t size_bytes) {
    for (size_t i = 0; i < size_bytes; i += 8) {
      first_ += Word(bytes + i) + second_;
      second_ += Word(bytes + i + 4) + first_;
    }
  }
  // Whether it is the one written at `bytes`.
  bool Equals(const unsigned char* bytes) const {
    return BigEndian(bytes) == first_ && BigEndian(bytes + 4) == second_;
  }

 private:
  uint32_t Word(const unsigned char* bytes) const {
    const uint32_t word = BigEndian(bytes);
    return big_endian_ ? word : __builtin_bswap32(word);
  }

  const bool big_endian_;
  uint32_t first_ = 0, second_ = 0;
};

}  // namespace

void JournalFile::Closer::operator()(std::max_align_t* memory) const {
  auto* file = reinterpret_cast<sqlite3_file*>(memory);
  if (file->pMethods != nullptr) file->pMethods->xClose(file);
  delete[] memory;
}

absl::StatusOr<JournalFile> JournalFile::Open(const std::string& path, const std::string& vfs_name, int flags) {
  sqlite3_vfs* vfs = sqlite3_vfs_find(vfs_name.empty() ? nullptr : vfs_name.c_str());
  std::unique_ptr<std::max_align_t[], Closer> memory(
      new std::max_align_t[static_cast<size_t>(vfs->szOsFile) / sizeof(std::max_align_t) + 1]());
  auto* file = reinterpret_cast<sqlite3_file*>(memory.get());
  sqlite3_int64 size_bytes = 0;
  int code = vfs->xOpen(vfs, path.c_str(), file, SQLITE_OPEN_READWRITE | SQLITE_OPEN_WAL | flags, nullptr);
  if (code == SQLITE_OK) code = file->pMethods->xFileSize(file, &size_bytes);
  if (code != SQLITE_OK) return SqliteError(path, code, "");
  return JournalFile(path, std::move(memory), size_bytes);
}

absl::StatusOr<JournalExtent> JournalFile::Measure() {
  JournalExtent extent;
  std::array<unsigned char, kHeaderBytes> header = {};
  if (size_bytes_ < kHeaderBytes) return extent;  // of a use that had not begun
  int code = file()->pMethods->xRead(file(), header.data(), kHeaderBytes, 0);
  if (code != SQLITE_OK) return SqliteError(path_, code, "");
  const uint32_t page_bytes = BigEndian(&header[8]);
  Checksum checksum((BigEndian(header.data()) & 1) != 0);
  checksum.Add(header.data(), 24);
  extent.has_header = (BigEndian(header.data()) & ~1u) == kMagic && page_bytes >= 512 && page_bytes <= 65536 &&
                      checksum.Equals(&header[24]);
  if (!extent.has_header) {
    extent.frames_behind = size_bytes_ > kHeaderBytes ? 1 : 0;
    return extent;
  }
  const sqlite3_int64 frame_bytes = kFrameHeaderBytes + page_bytes;
  std::vector<unsigned char> frame(static_cast<size_t>(frame_bytes));
  bool is_sound = true;
  for (sqlite3_int64 at = kHeaderBytes; at + frame_bytes <= size_bytes_; at += frame_bytes) {
    code = file()->pMethods->xRead(file(), frame.data(), static_cast<int>(frame_bytes), at);
    if (code != SQLITE_OK) return SqliteError(path_, code, "");
    const bool is_of_this_use = std::memcmp(&frame[8], &header[16], 8) == 0;
    if (is_sound) {
      checksum.Add(frame.data(), 8);
      checksum.Add(&frame[kFrameHeaderBytes], page_bytes);
      is_sound = is_of_this_use && checksum.Equals(&frame[16]);
    }
    if (is_sound) {
      ++extent.sound_frames;
    } else if (is_of_this_use) {
      ++extent.frames_behind;
    }
  }
  return extent;
}

absl::Status JournalFile::WriteAllTo(JournalFile& to) {
  std::string piece;
  int code = SQLITE_OK;
  for (sqlite3_int64 at = 0; code == SQLITE_OK && at < size_bytes_; at += static_cast<sqlite3_int64>(piece.size())) {
    piece.resize(static_cast<size_t>(std::min(size_bytes_ - at, kPieceBytes)));
    code = file()->pMethods->xRead(file(), piece.data(), static_cast<int>(piece.size()), at);
    if (code != SQLITE_OK) return SqliteError(path_, code, "");
    code = to.file()->pMethods->xWrite(to.file(), piece.data(), static_cast<int>(piece.size()), at);
  }
  if (code == SQLITE_OK) code = to.file()->pMethods->xSync(to.file(), SQLITE_SYNC_NORMAL);
  return code == SQLITE_OK ? absl::OkStatus() : SqliteError(to.path_, code, "");
}

absl::Status JournalFile::Renew() { return WriteAllTo(*this); }

absl::Status JournalFile::CopyTo(const std::string& path, const std::string& vfs) {
  auto copy = Open(path, vfs, SQLITE_OPEN_CREATE);
  if (!copy.ok()) return copy.status();
  if (const int code = copy->file()->pMethods->xTruncate(copy->file(), 0); code != SQLITE_OK) {
    return SqliteError(path, code, "");
  }
  return WriteAllTo(*copy);
}

}  // namespace normserve
