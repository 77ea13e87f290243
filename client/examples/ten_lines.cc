// Ten lines of C++: a layer, a training step, an evaluation.
#include <normserve/client.h>

#include <iostream>

int main(int argc, char** argv) {
  auto client = normserve::client::Client::Connect(argc > 1 ? argv[1] : "127.0.0.1:8001");
  auto bn = client->CreateSession({.config = {.num_features = 3}});  // as nn.BatchNorm2d(3)
  if (!bn.ok()) return std::cerr << bn.status() << "\n", 1;
  std::vector<float> x(4 * 3 * 32 * 32, 0.5f);
  x[0] = 1.0f;
  auto trained = bn->Forward({{4, 3, 32, 32}, x});  // normalises with the batch, updates the running statistics
  auto evaluated = bn->Forward({{4, 3, 32, 32}, x}, {.mode = normserve::client::Mode::kEval});
  if (!evaluated.ok()) return std::cerr << evaluated.status() << "\n", 1;
  std::cout << trained->output.values[0] << " in training, " << evaluated->output.values[0] << " in evaluation\n";
  return bn->Delete().ok() ? 0 : 1;
}
