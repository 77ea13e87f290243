#include "server/checkpoint/checkpoint_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "kernels/error_reason.h"
#include "server/checkpoint/checkpoint_reader.h"

namespace normserve {
namespace {

using testing::ElementsAre;

OutgoingLayer Layer(const std::string& path, std::vector<double> mean, std::vector<double> variance) {
  OutgoingLayer layer{.session = "net/" + path, .path = path, .num_batches_tracked = 7};
  layer.parameters = std::make_shared<const AffineParameters>(AffineParameters{
      .weight = std::vector<float>(mean.size(), 0.1f), .bias = std::vector<float>(mean.size(), -0.0f)});
  layer.statistics = std::make_shared<const NormalizationStatistics>(
      NormalizationStatistics{.mean = std::move(mean), .variance = std::move(variance)});
  return layer;
}

std::string Written(CheckpointWriter& writer, size_t piece_bytes) {
  std::string file;
  while (true) {
    const std::string piece = writer.Next(piece_bytes);
    if (piece.empty()) return file;
    EXPECT_LE(piece.size(), std::max<size_t>(piece_bytes, 8));
    file += piece;
  }
}

TEST(CheckpointWriter, WritesTheSameFileInPiecesOfAnySize) {
  OutgoingLayer plain = Layer("plain", {1}, {2});
  plain.parameters = nullptr;
  const std::vector<OutgoingLayer> layers = {Layer("a.bn", {0.5, -1, 1e-45f}, {1, 0, 3e38}), plain};
  auto whole_writer = CheckpointWriter::ForLayers(layers);
  ASSERT_TRUE(whole_writer.ok()) << whole_writer.status();
  const std::string whole = Written(*whole_writer, 1 << 20);
  EXPECT_EQ(static_cast<int64_t>(whole.size()), whole_writer->size_bytes());
  for (size_t piece = 1; piece < 200; ++piece) {
    auto writer = CheckpointWriter::ForLayers(layers);
    ASSERT_EQ(Written(*writer, piece), whole) << piece;
  }
  CheckpointReader reader("");
  ASSERT_TRUE(reader.Feed(whole).ok());
  const auto read = reader.Finish();
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_THAT(read->layers[0].statistics.mean, ElementsAre(0.5, -1, static_cast<double>(1e-45f)));
  EXPECT_TRUE(std::signbit(read->layers[0].parameters.bias[0]));
  EXPECT_EQ(read->layers[0].num_batches_tracked, 7);
  EXPECT_EQ(read->layers[1].path, "plain");
  EXPECT_TRUE(read->layers[1].parameters.weight.empty());
}

TEST(CheckpointWriter, TellsHowFarFloat32Is) {
  const auto writer =
      CheckpointWriter::ForLayers({Layer("exact", {1, 0}, {0.25, 2}), Layer("off", {1 + 0x1p-25, 1}, {1, 1})});
  ASSERT_TRUE(writer.ok());
  EXPECT_THAT(writer->rounding().of_layers, ElementsAre(0, 0x1p-25 / (1 + 0x1p-25)));
  EXPECT_EQ(writer->rounding().largest, writer->rounding().of_layers[1]);
}

TEST(CheckpointWriter, RefusesWhatFloat32DoesNotHold) {
  const auto writer = CheckpointWriter::ForLayers({Layer("bn", {1, 1}, {1, 1e39})});
  ASSERT_FALSE(writer.ok());
  EXPECT_EQ(writer.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(GetErrorDetails(writer.status())->reason, ErrorReason::kNonFinite);
  EXPECT_THAT(std::string(writer.status().message()),
              testing::HasSubstr("\"net/bn\" has running_var 1e+39 at channel 1"));
}

}  // namespace
}  // namespace normserve
