// Uses the installed protocol headers without the client library.
#include <normserve/v1/batch_norm_service.grpc.pb.h>

int main() {
  normserve::v1::CreateSessionRequest request;
  request.mutable_config()->set_num_features(3);
  return request.config().num_features() == 3 ? 0 : 1;
}
