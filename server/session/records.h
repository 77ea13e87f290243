// The bytes that a store keeps: sessions, vectors, answers and snapshots, written and read bit for bit. Here is what
// all records have in common and which versions there are; stored_*.cc have the fields of each kind, and include this.
//
// A record is a version byte, its fields in order, and the XXH3-64 of all before. Numbers are little-endian: integers
// of 8 bytes, IEEE 754 floats and doubles; a text or a vector begins with its length. A new version is read beside the
// old ones.
//
// Version 1 holds what is stored and nothing of its row. Version 2, of heads, requests and snapshots, adds
// what ties it to its row and says what else must be there:
//
//   head      at its end: name and uid of the session; the number of requests remembered so far; the version of the
//             shadow moments, -1 for none. (Those of the other vectors are in its state.) Version 3 adds that of the
//             observed moments, version 5 the number of rows of collections, version 6 the version of the moments
//             observed before.
//   request   at its beginning: uid of the session, empty for the server's; request_id; sequence
//   snapshot  at its beginning: uid of the session; name
//
// Version 4 of heads and snapshots adds, at the end of the state, statistics_set_at, and to the head, at its end, the
// number of updates that its history counts (no snapshot is of version 3). A point of this history has had its uid and
// slot since its version 1. Version 2 of moments, of what was observed, and of parts and results of collections adds
// the number of samples behind each m2, version 3 of results the choices of the commit.
//
// What damage does, to a record, to its row, or by taking the row away: of a head or a vector, all of the session is
// lost; of a collection's row, what is gathered can only be dropped; of a request or a kept vector, its next change and
// every repeat are refused; of a snapshot, that alone is lost; of a point of history, that alone, and nobody is told:
// it is an observation, and the next ones replace it; and of a request remembered for the server, a repeat of it is not
// recognised. Nothing tells that a session's row is missing, or one of a kept vector or of the last three: they are not
// there.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "server/session/session_errors.h"

namespace normserve {

inline constexpr char kFirstVersion = 1;
// The newest of heads, requests and snapshots.
inline constexpr char kHeadVersion = 6;
inline constexpr char kRequestVersion = 2;
inline constexpr char kSnapshotVersion = 4;
// Of moments by themselves and in a part; of results.
inline constexpr char kMomentsVersion = 2;
inline constexpr char kResultVersion = 3;

// What is wrong with a record that its row does not fit.
inline constexpr const char* kOfAnotherRow = "it is the record of another row";

// Writes one record of this version.
class RecordWriter {
 public:
  explicit RecordWriter(char version = kFirstVersion) { bytes_.push_back(version); }

  RecordWriter& Int(int64_t value) { return Raw(&value, sizeof(value)); }
  template <typename Enum>
  RecordWriter& Choice(Enum value) {
    return Int(static_cast<int64_t>(value));
  }
  RecordWriter& Double(double value) { return Raw(&value, sizeof(value)); }
  RecordWriter& Text(absl::string_view text);
  template <typename T>
  RecordWriter& Vector(const std::vector<T>& values) {
    Int(static_cast<int64_t>(values.size()));
    return Raw(values.data(), values.size() * sizeof(T));
  }
  RecordWriter& Time(absl::Time time) { return Int(absl::ToUnixNanos(time)); }

  // The record. Nothing can be written after it.
  std::string Finish();

 private:
  RecordWriter& Raw(const void* data, size_t size_bytes);

  std::string bytes_;
};

// Reads one record. Zeros and empty vectors once something was wrong; Finish says so.
class RecordReader {
 public:
  explicit RecordReader(absl::string_view record, char newest_version = kFirstVersion);

  char version() const { return version_; }

  int64_t Int();
  // One of 0 up to `last`.
  template <typename Enum>
  Enum Choice(Enum last) {
    const int64_t value = Int();
    if (value < 0 || value > static_cast<int64_t>(last)) {
      Spoil("a choice in it is not known");
      return last;
    }
    return static_cast<Enum>(value);
  }
  bool Bool() { return Int() != 0; }
  double Double();
  std::string Text();
  template <typename T>
  std::vector<T> Vector() {
    std::vector<T> values(Length(sizeof(T)));
    Raw(values.data(), values.size() * sizeof(T));
    return values;
  }
  absl::Time Time() { return absl::FromUnixNanos(Int()); }

  // DATA_LOSS (STORED_DATA_LOST), naming `what`: something was wrong, or not all was read.
  absl::Status Finish(const StoredPart& what);

  // Nothing more is read; the first word of it stays.
  void Spoil(const char* wrong) {
    if (wrong_ == nullptr) wrong_ = wrong;
    rest_ = {};
  }

 private:
  size_t Length(size_t element_bytes);
  void Raw(void* to, size_t size_bytes);

  char version_ = kFirstVersion;
  absl::string_view rest_;
  const char* wrong_ = nullptr;
};

// `value`, unless the reader found something wrong.
template <typename T>
absl::StatusOr<T> Finished(T value, RecordReader& from, const StoredPart& what) {
  if (absl::Status status = from.Finish(what); !status.ok()) return status;
  return value;
}

}  // namespace normserve
