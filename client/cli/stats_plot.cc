#include "client/cli/stats_plot.h"

#include <cairo.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace normserve::cli {
namespace {

struct Color {
  double red, green, blue;
};
constexpr Color kRunningColor{0.12, 0.37, 0.68};
constexpr Color kBatchColor{0.88, 0.45, 0.08};
constexpr Color kMissingColor{0.75, 0.1, 0.15};
constexpr Color kTextColor{0.15, 0.15, 0.15};
constexpr Color kGridColor{0.87, 0.87, 0.87};

constexpr double kLeft = 80, kRight = 20, kTop = 56, kBottom = 52;
constexpr size_t kMaxBars = 48;  // more channels are drawn as bands
constexpr double kFontSize = 13;

using Surface = std::unique_ptr<cairo_surface_t, decltype(&cairo_surface_destroy)>;
using Context = std::unique_ptr<cairo_t, decltype(&cairo_destroy)>;

// What is drawn of one channel; not finite: nothing.
struct Spread {
  double mean = std::numeric_limits<double>::quiet_NaN();
  double deviation = 0;

  bool IsThere() const { return std::isfinite(mean - deviation) && std::isfinite(mean + deviation); }
};

std::vector<Spread> RunningSpreads(const client::RunningStatistics& statistics) {
  std::vector<Spread> spreads;
  for (size_t c = 0; c < statistics.running_mean.size(); ++c) {
    spreads.push_back({statistics.running_mean[c], std::sqrt(statistics.running_var[c])});
  }
  return spreads;
}

std::vector<Spread> BatchSpreads(const client::Moments& batch) {
  std::vector<Spread> spreads;
  for (size_t c = 0; batch.count > 0 && c < batch.mean.size(); ++c) {
    spreads.push_back({batch.mean[c], std::sqrt(batch.BiasedVariance(c))});
  }
  return spreads;
}

// The smallest of 1, 2 and 5 times a power of ten that is not below `step`.
double NiceStep(double step) {
  const double power = std::pow(10, std::floor(std::log10(step)));
  for (const double digit : {1.0, 2.0, 5.0}) {
    if (digit * power >= step) return digit * power;
  }
  return 10 * power;
}

// Draws in channels and values; cairo only sees pixels.
class Plot {
 public:
  Plot(cairo_t* cairo, size_t num_channels, double low, double high)
      : cairo_(cairo), num_channels_(static_cast<double>(num_channels)), low_(low), high_(high) {}

  // `place` is 0 at the left edge of a channel, 1 at its right edge.
  double X(size_t channel, double place) const {
    return kLeft + (static_cast<double>(channel) + place) / num_channels_ * (kPlotWidth - kLeft - kRight);
  }
  double Y(double value) const {
    return kPlotHeight - kBottom - (value - low_) / (high_ - low_) * (kPlotHeight - kTop - kBottom);
  }

  void Use(Color color, double opacity = 1) {
    cairo_set_source_rgba(cairo_, color.red, color.green, color.blue, opacity);
  }
  // `align`: 0 begins at x, 0.5 is centred, 1 ends there.
  void Text(double x, double y, double align, const std::string& text) {
    cairo_text_extents_t extents;
    cairo_text_extents(cairo_, text.c_str(), &extents);
    cairo_move_to(cairo_, x - align * extents.x_advance, y);
    cairo_show_text(cairo_, text.c_str());
  }
  void Line(double x0, double y0, double x1, double y1, double width) {
    cairo_set_line_width(cairo_, width);
    cairo_move_to(cairo_, x0, y0);
    cairo_line_to(cairo_, x1, y1);
    cairo_stroke(cairo_);
  }

  void ValueAxis() {
    const double step = NiceStep((high_ - low_) / 7);
    for (double at = std::ceil(low_ / step); at * step <= high_; ++at) {
      const double y = Y(at * step);
      Use(kGridColor);
      Line(kLeft, y, kPlotWidth - kRight, y, 1);
      Use(kTextColor);
      Text(kLeft - 8, y + kFontSize / 3, 1, absl::StrFormat("%.4g", at == 0 ? 0.0 : at * step));
    }
  }
  void ChannelAxis(int64_t first_channel) {
    Use(kTextColor);
    const double step = std::max(1.0, NiceStep(num_channels_ / 12));
    for (double c = 0; c < num_channels_; c += step) {
      const auto channel = static_cast<size_t>(c);
      Text(X(channel, 0.5), kPlotHeight - kBottom + 18, 0.5, absl::StrCat(first_channel + static_cast<int64_t>(c)));
    }
    Text((kLeft + kPlotWidth - kRight) / 2, kPlotHeight - 12, 0.5, "channel");
  }

  void Bars(const std::vector<Spread>& spreads, double place, Color color) {
    const double width = std::clamp((X(1, 0) - X(0, 0)) * 0.3, 2.0, 16.0);
    for (size_t c = 0; c < spreads.size(); ++c) {
      if (!spreads[c].IsThere()) continue;
      const double x = X(c, place), mean = Y(spreads[c].mean);
      const double top = Y(spreads[c].mean + spreads[c].deviation), bottom = Y(spreads[c].mean - spreads[c].deviation);
      Use(color, 0.35);
      cairo_rectangle(cairo_, x - width / 2, top, width, std::max(1.0, bottom - top));
      cairo_fill(cairo_);
      Use(color);
      Line(x - width / 2, mean, x + width / 2, mean, 2.5);
    }
  }
  // Ends where a channel has nothing, and begins again after it.
  void Bands(const std::vector<Spread>& spreads, Color color) {
    for (size_t first = 0; first < spreads.size(); ++first) {
      size_t end = first;
      while (end < spreads.size() && spreads[end].IsThere()) ++end;
      if (end > first) Band(spreads, first, end, color);
      first = end;
    }
  }
  void Missing(const std::vector<Spread>& spreads, double place) {
    Use(kMissingColor);
    for (size_t c = 0; c < spreads.size(); ++c) {
      if (!spreads[c].IsThere()) Text(X(c, place), kPlotHeight - kBottom - 4, 0.5, "×");
    }
  }
  void LegendEntry(double x, Color color, const std::string& text) {
    Use(color, 0.35);
    cairo_rectangle(cairo_, x, kTop - 24, 18, 12);
    cairo_fill(cairo_);
    Use(color);
    Line(x, kTop - 18, x + 18, kTop - 18, 2.5);
    Use(kTextColor);
    Text(x + 24, kTop - 14, 0, text);
  }

 private:
  void Band(const std::vector<Spread>& spreads, size_t first, size_t end, Color color) {
    cairo_move_to(cairo_, X(first, 0.5), Y(spreads[first].mean + spreads[first].deviation));
    for (size_t c = first; c < end; ++c) cairo_line_to(cairo_, X(c, 0.5), Y(spreads[c].mean + spreads[c].deviation));
    for (size_t c = end; c-- > first;) cairo_line_to(cairo_, X(c, 0.5), Y(spreads[c].mean - spreads[c].deviation));
    cairo_close_path(cairo_);
    Use(color, 0.25);
    cairo_fill(cairo_);
    cairo_move_to(cairo_, X(first, 0.5), Y(spreads[first].mean));
    for (size_t c = first; c < end; ++c) cairo_line_to(cairo_, X(c, 0.5), Y(spreads[c].mean));
    Use(color);
    cairo_set_line_width(cairo_, 1.5);
    cairo_stroke(cairo_);
  }

  cairo_t* const cairo_;
  const double num_channels_;
  const double low_, high_;
};

cairo_status_t Append(void* png, const unsigned char* data, unsigned int length) {
  static_cast<std::string*>(png)->append(reinterpret_cast<const char*>(data), length);
  return CAIRO_STATUS_SUCCESS;
}

}  // namespace

absl::StatusOr<std::string> PlotStats(const client::SessionStats& stats) {
  const std::vector<Spread> running = RunningSpreads(stats.statistics);
  if (running.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("session \"", stats.name, "\" keeps no running statistics: there is nothing to draw"));
  }
  const std::vector<Spread> batch = BatchSpreads(stats.last_batch.value_or(client::Moments{}));

  double low = std::numeric_limits<double>::infinity(), high = -low;
  for (const auto* spreads : {&running, &batch}) {
    for (const Spread& spread : *spreads) {
      if (!spread.IsThere()) continue;
      low = std::min(low, spread.mean - spread.deviation);
      high = std::max(high, spread.mean + spread.deviation);
    }
  }
  if (!(low <= high)) low = -1, high = 1;
  const double margin = high > low ? (high / 2 - low / 2) * 0.1 : std::max(std::abs(high), 1.0) * 0.1;
  low -= margin;
  high += margin;
  if (!std::isfinite(high - low)) {
    return absl::FailedPreconditionError(absl::StrCat("the statistics of \"", stats.name, "\" are too large to draw"));
  }

  const Surface surface(cairo_image_surface_create(CAIRO_FORMAT_RGB24, kPlotWidth, kPlotHeight), cairo_surface_destroy);
  const Context context(cairo_create(surface.get()), cairo_destroy);
  cairo_set_source_rgb(context.get(), 1, 1, 1);
  cairo_paint(context.get());
  cairo_select_font_face(context.get(), "sans-serif", CAIRO_FONT_SLANT_NORMAL, CAIRO_FONT_WEIGHT_NORMAL);
  cairo_set_font_size(context.get(), kFontSize);
  Plot plot(context.get(), running.size(), low, high);
  plot.ValueAxis();
  plot.ChannelAxis(stats.first_channel);
  plot.Use(kTextColor);
  plot.Text(kLeft, 18, 0,
            absl::StrCat(stats.name, ", generation ", stats.generation, ", ", stats.statistics.num_batches_tracked,
                         " batches folded in"));
  const bool is_bars = running.size() <= kMaxBars;
  if (is_bars) {
    plot.Bars(running, batch.empty() ? 0.5 : 0.3, kRunningColor);
    plot.Bars(batch, 0.7, kBatchColor);
  } else {
    plot.Bands(running, kRunningColor);
    plot.Bands(batch, kBatchColor);
  }
  plot.Missing(running, is_bars && !batch.empty() ? 0.3 : 0.5);
  plot.Missing(batch, is_bars ? 0.7 : 0.5);
  plot.LegendEntry(kLeft, kRunningColor, "running mean ± standard deviation");
  if (!batch.empty()) {
    plot.LegendEntry(kLeft + 290, kBatchColor,
                     absl::StrCat("newest batch, ", stats.last_batch->count, " values a channel"));
  }
  std::string png;
  const cairo_status_t status = cairo_surface_write_to_png_stream(surface.get(), Append, &png);
  if (status != CAIRO_STATUS_SUCCESS) {
    return absl::ResourceExhaustedError(absl::StrCat("the picture cannot be made: ", cairo_status_to_string(status)));
  }
  return png;
}

}  // namespace normserve::cli
