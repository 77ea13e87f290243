#include "client/cli/watch_command.h"

#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <deque>
#include <map>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/cli/named.h"
#include "client/cli/session_text.h"
#include "client/cli/sparkline.h"
#include "client/cli/stats_text.h"

namespace normserve::cli {
namespace {

using client::SessionStats;
using client::StatsUpdate;

constexpr size_t kHistory = 20;  // drifts that are drawn of each session

// Cancels a watch when the process is told to end. Made before any other thread, so that all hold the signals back.
class Interruption {
 public:
  Interruption() {
    sigemptyset(&signals_);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&signals_, signal);
    pthread_sigmask(SIG_BLOCK, &signals_, nullptr);
  }
  ~Interruption() {
    if (!thread_.joinable()) return;
    pthread_kill(thread_.native_handle(), SIGTERM);  // held back there too: it only ends the wait
    thread_.join();
  }
  Interruption(const Interruption&) = delete;
  Interruption& operator=(const Interruption&) = delete;

  void Cancels(client::StatsWatch& watch) {
    thread_ = std::thread([this, &watch] {
      int number = 0;
      sigwait(&signals_, &number);
      watch.Cancel();
    });
  }

 private:
  sigset_t signals_;
  std::thread thread_;
};

// What is shown of the sessions, as far as it was told.
class Table {
 public:
  void Take(const StatsUpdate& update) {
    if (update.is_complete) rows_.clear();
    for (const std::string& name : update.deleted_sessions) rows_.erase(name);
    for (const SessionStats& stats : update.sessions) {
      Row& row = rows_[stats.name];
      if (row.stats.uid != stats.uid) row.drifts.clear();
      row.stats = stats;
      if (!stats.summary.has_value() || !stats.summary->drift.has_value()) continue;
      row.drifts.push_back(*stats.summary->drift);
      if (row.drifts.size() > kHistory) row.drifts.pop_front();
    }
  }

  // As if every session had changed.
  StatsUpdate All(const StatsUpdate& update) const {
    StatsUpdate all{.deleted_sessions = update.deleted_sessions};
    for (const auto& [name, row] : rows_) all.sessions.push_back(row.stats);
    return all;
  }

  std::string Text(const std::string& title) const {
    std::string text = absl::StrFormat("%s   %s\n\n%8s  %-*s  generation  mode      batches  name\n", title,
                                       TimeText(absl::Now()), "drift", static_cast<int>(kHistory), "so far");
    for (const auto& [name, row] : rows_) {
      const std::string flags = FlagsText(row.stats);
      absl::StrAppendFormat(&text, "%8s  %s  %10d  %-7s %9d  %s%s\n", DriftText(row.stats),
                            PaddedSparkline(Sparkline({row.drifts.begin(), row.drifts.end()}, kHistory), kHistory),
                            row.stats.generation, ModeName(row.stats.mode), row.stats.statistics.num_batches_tracked,
                            name, flags.empty() ? "" : absl::StrCat("   ", flags));
    }
    return text;
  }

 private:
  struct Row {
    SessionStats stats;
    std::deque<double> drifts;
  };
  std::map<std::string, Row> rows_;
};

std::string Lines(const StatsUpdate& update) {
  const std::string time = absl::FormatTime("%H:%M:%E3S", absl::Now(), absl::LocalTimeZone());
  std::string text;
  for (const SessionStats& stats : update.sessions) {
    const std::string flags = FlagsText(stats);
    absl::StrAppend(&text, time, "  ", stats.name, "  generation ", stats.generation, "  ", ModeName(stats.mode),
                    "  batches ", stats.statistics.num_batches_tracked, "  drift ", DriftText(stats),
                    flags.empty() ? "" : "  ", flags, "\n");
  }
  for (const std::string& name : update.deleted_sessions) absl::StrAppend(&text, time, "  ", name, "  deleted\n");
  return text;
}

std::string JsonLines(const StatsUpdate& update) {
  std::string text;
  for (const SessionStats& stats : update.sessions) absl::StrAppend(&text, ToJson(stats).dump(), "\n");
  for (const std::string& name : update.deleted_sessions) {
    absl::StrAppend(&text, nlohmann::ordered_json{{"name", name}, {"deleted", true}}.dump(), "\n");
  }
  return text;
}

// False: nobody reads any more.
bool Print(const std::string& text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0) return true;
  if (errno == EPIPE) std::clearerr(stdout);  // that is no failure
  return false;
}

}  // namespace

int Watch(const CommandLine& command_line, const WatchCommandOptions& options) {
  signal(SIGPIPE, SIG_IGN);                   // a reader that is gone ends it like an interrupt
  std::unique_ptr<client::StatsWatch> watch;  // outlives what may cancel it
  Interruption interruption;
  const absl::StatusOr<client::Client> client = MakeClient(command_line);
  if (!client.ok()) return Fail(command_line, client.status());
  client::WatchOptions asked{
      .stats = {.view = client::StatsView::kSummary, .compare_with = client::ComparisonSource::kLastBatch}};
  if (!options.interval.empty()) absl::ParseDuration(options.interval, &asked.interval);
  const bool is_model = IsModel(options.session);
  watch = is_model ? client->AttachModel(options.session).Watch(asked) : client->Attach(options.session).Watch(asked);
  interruption.Cancels(*watch);

  const bool is_terminal = isatty(STDOUT_FILENO) != 0 && !command_line.json;
  Table table;
  int64_t num_left = options.count;
  const absl::Status status = watch->ForEach([&](const StatsUpdate& update) {
    bool is_read = true;
    table.Take(update);
    if (is_terminal) {
      // To the top, and what is below gone.
      is_read = Print(absl::StrCat("\033[H\033[J", table.Text(options.session)));
    } else {
      // What was asked for at every interval is told then, changed or not.
      const StatsUpdate told = options.interval.empty() ? update : table.All(update);
      is_read = Print(command_line.json ? JsonLines(told) : Lines(told));
    }
    return is_read && --num_left != 0;
  });
  return status.ok() || absl::IsCancelled(status) ? kOk : Fail(command_line, status);
}

}  // namespace normserve::cli
