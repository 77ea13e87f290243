#include "server/session/session_name.h"

#include <algorithm>
#include <random>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "server/session/field_error.h"

namespace normserve {
namespace {

constexpr size_t kMaxNameBytes = 255;
constexpr size_t kMaxSegments = 16;
constexpr size_t kMaxSegmentBytes = 63;

bool IsLegalSegment(absl::string_view segment) {
  if (segment.empty() || segment.size() > kMaxSegmentBytes) return false;
  if (!absl::ascii_isalnum(segment[0]) && segment[0] != '_') return false;
  for (const char c : segment) {
    if (!absl::ascii_isalnum(c) && c != '_' && c != '.' && c != '-') return false;
  }
  return true;
}

// Taken from the system, so that names and uids do not repeat after a restart or a fork.
std::string RandomHex(int num_words) {
  std::random_device source;
  std::string text;
  for (int i = 0; i < num_words; ++i) absl::StrAppendFormat(&text, "%08x", source());
  return text;
}

}  // namespace

absl::Status CheckSessionName(absl::string_view field, absl::string_view name) {
  constexpr absl::string_view kRule =
      "send 1 to 16 segments joined by '/', each [A-Za-z0-9_][A-Za-z0-9._-]{0,62}, at most 255 bytes";
  if (name.empty()) return FieldError(field, absl::StrCat(field, " is empty: ", kRule));
  if (name.size() > kMaxNameBytes)
    return FieldError(field, absl::StrCat(field, " has ", name.size(), " bytes: ", kRule));
  const std::vector<absl::string_view> segments = absl::StrSplit(name, '/');
  bool legal = segments.size() <= kMaxSegments;
  for (const absl::string_view segment : segments) legal = legal && IsLegalSegment(segment);
  if (legal) return absl::OkStatus();
  return FieldError(field, absl::StrCat(field, " is \"", absl::CHexEscape(name), "\", which is not legal: ", kRule));
}

absl::Status CheckSnapshotName(absl::string_view field, absl::string_view name) {
  if (IsLegalSegment(name)) return absl::OkStatus();
  return FieldError(field, absl::StrCat(field, " is \"", absl::CHexEscape(name.substr(0, 100)),
                                        "\", which is not legal: send [A-Za-z0-9_][A-Za-z0-9._-]{0,62}"));
}

std::string MakeSessionName() { return absl::StrCat("session-", RandomHex(2)); }

std::string MakeSessionUid() { return RandomHex(4); }

bool IsSessionUid(absl::string_view text) {
  return text.size() == 32 && std::all_of(text.begin(), text.end(), absl::ascii_isxdigit);
}

}  // namespace normserve
