#include "client/cli/stats_plot.h"

#include <cairo.h>
#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <memory>
#include <vector>

namespace normserve::cli {
namespace {

using client::SessionStats;

// Red, green and blue of every pixel, as an independent reader of PNG files sees them.
std::vector<uint32_t> Pixels(const std::string& png) {
  struct Source {
    const std::string& bytes;
    size_t at = 0;
  } source{png};
  const auto read = [](void* from, unsigned char* to, unsigned int length) {
    auto& bytes = *static_cast<Source*>(from);
    if (bytes.bytes.size() - bytes.at < length) return CAIRO_STATUS_READ_ERROR;
    std::memcpy(to, bytes.bytes.data() + bytes.at, length);
    bytes.at += length;
    return CAIRO_STATUS_SUCCESS;
  };
  const std::unique_ptr<cairo_surface_t, decltype(&cairo_surface_destroy)> surface(
      cairo_image_surface_create_from_png_stream(read, &source), cairo_surface_destroy);
  EXPECT_EQ(cairo_surface_status(surface.get()), CAIRO_STATUS_SUCCESS);
  EXPECT_EQ(cairo_image_surface_get_width(surface.get()), kPlotWidth);
  EXPECT_EQ(cairo_image_surface_get_height(surface.get()), kPlotHeight);
  std::vector<uint32_t> pixels;
  for (int y = 0; y < kPlotHeight; ++y) {
    const auto* row = reinterpret_cast<const uint32_t*>(cairo_image_surface_get_data(surface.get()) +
                                                        y * cairo_image_surface_get_stride(surface.get()));
    for (int x = 0; x < kPlotWidth; ++x) pixels.push_back(row[x] & 0xFFFFFF);
  }
  return pixels;
}

std::vector<uint32_t> Drawn(const SessionStats& stats) {
  const auto png = PlotStats(stats);
  EXPECT_TRUE(png.ok()) << png.status();
  EXPECT_EQ(png->substr(0, 8), "\x89PNG\r\n\x1a\n");
  return Pixels(*png);
}

// Pixels that are more orange, the batch's colour, than blue, the running statistics'.
int64_t CountOrange(const std::vector<uint32_t>& pixels) {
  int64_t count = 0;
  for (const uint32_t pixel : pixels) count += (pixel >> 16) > (pixel & 0xFF) + 60;
  return count;
}

SessionStats Layer(size_t num_channels, double mean = 0, double var = 1) {
  return {.name = "net/bn",
          .statistics = {.running_mean = std::vector<double>(num_channels, mean),
                         .running_var = std::vector<double>(num_channels, var)}};
}

TEST(PlotStats, EqualStatisticsAreEqualPicturesAndOthersAreNot) {
  for (const size_t channels : {1, 16, 300}) {
    SessionStats stats = Layer(channels);
    const auto first = Drawn(stats);
    EXPECT_EQ(first, Drawn(stats));
    stats.statistics.running_mean[channels / 2] = 0.8;
    const auto other_mean = Drawn(stats);
    EXPECT_NE(first, other_mean);
    stats.statistics.running_var[channels / 2] = 0.2;
    EXPECT_NE(other_mean, Drawn(stats));
  }
}

TEST(PlotStats, TheBatchIsDrawnBesideTheRunningStatistics) {
  for (const size_t channels : {3, 300}) {
    SessionStats stats = Layer(channels);
    EXPECT_EQ(CountOrange(Drawn(stats)), 0);
    stats.last_batch =
        client::Moments{.count = 8, .mean = std::vector<double>(channels, 3), .m2 = std::vector<double>(channels, 8)};
    EXPECT_GT(CountOrange(Drawn(stats)), 500);
    stats.last_batch = client::Moments{};
    EXPECT_EQ(CountOrange(Drawn(stats)), 0) << "there was no batch";
  }
}

TEST(PlotStats, WhatIsNotFiniteIsMarkedAndLeavesTheRest) {
  SessionStats stats = Layer(4);
  const auto whole = Drawn(stats);
  stats.statistics.running_var[2] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_NE(whole, Drawn(stats));
  Drawn(Layer(4, std::numeric_limits<double>::infinity()));
  Drawn(Layer(4, 0, 0));
  Drawn(Layer(4, -1e300, 1e300));
  Drawn(Layer(4, 5e-324, 5e-324));
}

TEST(PlotStats, WithoutStatisticsThereIsNothingToDraw) {
  EXPECT_EQ(PlotStats({.name = "a"}).status().code(), absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace normserve::cli
