#include "server/session/page_token.h"

#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/session/field_error.h"
#include "server/session/fingerprint.h"

namespace normserve {
namespace {

constexpr size_t kDigestDigits = 16;

// A digest and a session's name, in base 64, are shorter.
constexpr size_t kMaxTokenBytes = 1024;

// Ties the token to its listing and makes a made-up one unlikely to pass.
std::string Digest(Listing listing, absl::string_view of, absl::string_view last_name) {
  FingerprintBuilder digest(listing == Listing::kSessions ? "ListSessions" : "ListSnapshots");
  return absl::StrFormat("%016x", digest.Add(of).Add(last_name).Finish().low);
}

}  // namespace

std::string MakePageToken(Listing listing, absl::string_view of, absl::string_view last_name) {
  return absl::WebSafeBase64Escape(absl::StrCat(Digest(listing, of, last_name), last_name));
}

absl::StatusOr<std::string> ReadPageToken(Listing listing, absl::string_view of, absl::string_view token) {
  if (token.size() > kMaxTokenBytes) {
    return FieldError("page_token", absl::StrCat("page_token has ", token.size(),
                                                 " characters, which no next_page_token has: send one unchanged"));
  }
  std::string text;
  if (absl::WebSafeBase64Unescape(token, &text) && text.size() > kDigestDigits) {
    std::string last_name = text.substr(kDigestDigits);
    if (text.substr(0, kDigestDigits) == Digest(listing, of, last_name)) return last_name;
  }
  const auto [listed, came_for] = listing == Listing::kSessions ? std::pair("listing with prefix", "prefix")
                                                                : std::pair("listing of the snapshots of", "name");
  return FieldError("page_token", absl::StrCat("page_token is \"", absl::CHexEscape(token), "\", which is no ",
                                               "next_page_token of a ", listed, " \"", of,
                                               "\": send the token with the ", came_for, " it came for"));
}

}  // namespace normserve
