#include "server/observe/admin_site.h"

namespace normserve {

HttpReply AdminSite::Answer(const HttpRequest& request) {
  if (request.path == "/healthz") {
    return gate_.is_draining() ? HttpReply{.status = 503, .body = "draining\n"} : HttpReply{.body = "ok\n"};
  }
  if (request.path == "/metrics") return {.content_type = MetricsPage::kContentType, .body = metrics_.Write()};
  return {.status = 404, .body = "There is no such page: /metrics and /healthz are there.\n"};
}

}  // namespace normserve
