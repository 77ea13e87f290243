#include "server/observe/admin_site.h"

#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "server/observe/page/chart.js.h"
#include "server/observe/page/icon.svg.h"
#include "server/observe/page/index.html.h"
#include "server/observe/page/page.css.h"
#include "server/observe/page/page.js.h"
#include "server/observe/statistics_json.h"
#include "server/session/field_error.h"

namespace normserve {
namespace {

constexpr char kJson[] = "application/json";

struct File {
  const char* path;
  const char* content_type;
  absl::string_view bytes;
};

const File kFiles[] = {
    {"/", "text/html; charset=utf-8", {kIndexHtml, sizeof(kIndexHtml)}},
    {"/page.css", "text/css; charset=utf-8", {kPageCss, sizeof(kPageCss)}},
    {"/page.js", "text/javascript; charset=utf-8", {kPageJs, sizeof(kPageJs)}},
    {"/chart.js", "text/javascript; charset=utf-8", {kChartJs, sizeof(kChartJs)}},
    {"/icon.svg", "image/svg+xml", {kIconSvg, sizeof(kIconSvg)}},
};

int HttpStatus(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kInvalidArgument:
      return 400;
    case absl::StatusCode::kNotFound:
      return 404;
    case absl::StatusCode::kResourceExhausted:
      return 429;
    case absl::StatusCode::kUnavailable:
      return 503;
    default:
      return 500;
  }
}

HttpReply JsonReply(absl::StatusOr<std::string> json) {
  if (json.ok()) return {.content_type = kJson, .body = *std::move(json)};
  using Json = nlohmann::ordered_json;
  const Json error = {{"error", std::string(json.status().message())}};
  return {.status = HttpStatus(json.status().code()),
          .content_type = kJson,
          .body = error.dump(-1, ' ', false, Json::error_handler_t::replace)};
}

absl::Status ReadNumber(const HttpRequest& request, const char* name, int64_t& number) {
  const auto found = request.query.find(name);
  if (found == request.query.end() || absl::SimpleAtoi(found->second, &number)) return absl::OkStatus();
  return FieldError(name, absl::StrCat(name, " is no whole number"));
}

absl::StatusOr<ChannelQuery> ReadChannelQuery(const HttpRequest& request) {
  ChannelQuery query;
  if (const auto order = request.query.find("order"); order != request.query.end()) {
    query.by_drift = order->second == "drift";
    if (!query.by_drift && order->second != "channel") {
      return FieldError("order", "order is neither channel nor drift");
    }
  }
  if (absl::Status status = ReadNumber(request, "begin", query.begin); !status.ok()) return status;
  if (absl::Status status = ReadNumber(request, "count", query.count); !status.ok()) return status;
  return query;
}

absl::StatusOr<std::string> SessionAnswer(SessionRegistry& registry, absl::string_view name,
                                          const HttpRequest& request) {
  const auto query = ReadChannelQuery(request);
  return query.ok() ? SessionJson(registry, name, *query) : query.status();
}

}  // namespace

AdminSite::AdminSite(const Sources& sources, int64_t max_session_gauges)
    : sources_(sources),
      metrics_({sources.calls, sources.registry, sources.gate, sources.saved_forwards, sources.server},
               max_session_gauges) {}

HttpReply AdminSite::Answer(const HttpRequest& request) {
  absl::string_view path = request.path;
  if (path == "/healthz") {
    return sources_.gate.is_draining() ? HttpReply{.status = 503, .body = "draining\n"} : HttpReply{.body = "ok\n"};
  }
  if (path == "/metrics") return {.content_type = MetricsPage::kContentType, .body = metrics_.Write()};
  if (path == "/api/models") return JsonReply(ModelsJson(sources_.registry, sources_.gate, sources_.server));
  if (absl::ConsumePrefix(&path, "/api/models/")) return JsonReply(ModelJson(sources_.registry, path));
  if (absl::ConsumePrefix(&path, "/api/sessions/")) return JsonReply(SessionAnswer(sources_.registry, path, request));
  for (const File& file : kFiles) {
    if (path == file.path) return {.content_type = file.content_type, .body = std::string(file.bytes)};
  }
  return {.status = 404, .body = "There is no such page: begin at /, or see /metrics, /healthz and /api/models.\n"};
}

}  // namespace normserve
