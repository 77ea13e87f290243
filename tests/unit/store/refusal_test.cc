// What SqliteStore::Open refuses, and that it leaves the directory as it was.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <memory>

#include "server/store/sqlite_store.h"
#include "sqlite3.h"
#include "tests/unit/server/status_matchers.h"
#include "tests/unit/store/scratch_directory.h"
#include "tests/unit/store/store_calls.h"

namespace normserve {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

void RunSql(const std::string& file, const std::string& sql) {
  sqlite3* connection = nullptr;
  ASSERT_EQ(sqlite3_open(file.c_str(), &connection), SQLITE_OK);
  EXPECT_EQ(sqlite3_exec(connection, sql.c_str(), nullptr, nullptr, nullptr), SQLITE_OK) << sqlite3_errmsg(connection);
  sqlite3_close(connection);
}

// A store with two sessions, "a" with a vector of several pages; closed.
void MakeStore(const std::string& directory) {
  auto store = SqliteStore::Open({.directory = directory});
  ASSERT_TRUE(store.ok()) << store.status();
  SessionWrite creation = Creation("a");
  creation.current = {{VectorKind::kRunning, 1, Pattern("value", 30000)}};
  ASSERT_TRUE(Put(**store, creation).ok());
  ASSERT_TRUE(Put(**store, Creation("b")).ok());
}

struct Refusal {
  const char* name;
  std::function<void(const ScratchDirectory&)> spoil;
  absl::StatusCode code;
  ErrorReason reason;
  const char* says;  // beside the file's name
};

void PrintTo(const Refusal& refusal, std::ostream* out) { *out << refusal.name; }

class RefusedOpen : public ::testing::TestWithParam<Refusal> {};

TEST_P(RefusedOpen, NamesTheFileAndChangesNothing) {
  const Refusal& refusal = GetParam();
  ScratchDirectory directory;
  MakeStore(directory.path());
  refusal.spoil(directory);
  for (const bool with_lock_file : {true, false}) {
    if (!with_lock_file) std::filesystem::remove(directory.file("normserve.lock"));
    const auto before = directory.Contents();
    const auto opened = SqliteStore::Open({.directory = directory.path()});
    EXPECT_THAT(opened.status(), Fails(refusal.code, refusal.reason));
    EXPECT_THAT(std::string(opened.status().message()),
                AllOf(HasSubstr(directory.file("normserve.db")), HasSubstr(refusal.says)));
    EXPECT_TRUE(directory.Contents() == before);
  }
}

const Refusal kRefusals[] = {
    {"NotADatabase", [](const ScratchDirectory& d) { d.Write("normserve.db", std::string(9000, 'x')); },
     absl::StatusCode::kDataLoss, ErrorReason::kStoredDataLost, "from a backup"},
    {"ShortGarbage", [](const ScratchDirectory& d) { d.Write("normserve.db", "hello"); }, absl::StatusCode::kDataLoss,
     ErrorReason::kStoredDataLost, "from a backup"},
    {"Truncated",
     [](const ScratchDirectory& d) { d.Write("normserve.db", d.Read("normserve.db").substr(0, 5 * 4096 + 17)); },
     absl::StatusCode::kDataLoss, ErrorReason::kStoredDataLost, "from a backup"},
    {"OverwrittenFirstPage",
     [](const ScratchDirectory& d) {
       std::string bytes = d.Read("normserve.db");
       bytes.replace(100, 3000, std::string(3000, '\xee'));
       d.Write("normserve.db", bytes);
     },
     absl::StatusCode::kDataLoss, ErrorReason::kStoredDataLost, "from a backup"},
    {"OverwrittenSessionsTable",
     [](const ScratchDirectory& d) {
       std::string bytes = d.Read("normserve.db");
       const size_t page = bytes.find("head of a at 1") / 4096;
       bytes.replace(page * 4096, 2000, std::string(2000, '\xee'));
       d.Write("normserve.db", bytes);
     },
     absl::StatusCode::kDataLoss, ErrorReason::kStoredDataLost, "from a backup"},
    {"AnotherProgramsDatabase",
     [](const ScratchDirectory& d) {
       std::filesystem::remove(d.file("normserve.db"));
       RunSql(d.file("normserve.db"), "CREATE TABLE t(x)");
     },
     absl::StatusCode::kFailedPrecondition, ErrorReason::kStoreRefused, "another program's"},
    {"AnotherProgramsDatabaseWithALog",
     [](const ScratchDirectory& d) {
       std::filesystem::remove(d.file("normserve.db"));
       RunSql(d.file("normserve.db"), "PRAGMA journal_mode=WAL; PRAGMA application_id=7; CREATE TABLE t(x)");
     },
     absl::StatusCode::kFailedPrecondition, ErrorReason::kStoreRefused, "application id 7"},
    {"NewerSchema", [](const ScratchDirectory& d) { RunSql(d.file("normserve.db"), "PRAGMA user_version = 9"); },
     absl::StatusCode::kFailedPrecondition, ErrorReason::kStoreRefused,
     "schema version 9, this server knows versions up to 6"},
    {"NewerSchemaInTheLogOfAKilledServer",
     [](const ScratchDirectory& d) {
       sqlite3* connection = nullptr;
       ASSERT_EQ(sqlite3_open(d.file("normserve.db").c_str(), &connection), SQLITE_OK);
       ASSERT_EQ(sqlite3_exec(connection, "PRAGMA user_version = 9", nullptr, nullptr, nullptr), SQLITE_OK);
       const auto contents = d.Contents();
       sqlite3_close(connection);
       for (const char* name : {"normserve.db", "normserve.db-wal"}) d.Write(name, contents.at(name));
     },
     absl::StatusCode::kFailedPrecondition, ErrorReason::kStoreRefused,
     "schema version 9, this server knows versions up to 6"},
};

INSTANTIATE_TEST_SUITE_P(Files, RefusedOpen, ::testing::ValuesIn(kRefusals),
                         [](const auto& info) { return info.param.name; });

TEST(RefusedOpenTest, ASecondServerLearnsTheFirstOnesProcess) {
  ScratchDirectory directory;
  auto first = SqliteStore::Open({.directory = directory.path()});
  ASSERT_TRUE(first.ok()) << first.status();
  ASSERT_TRUE(Put(**first, Creation("a")).ok());
  const auto before = directory.Contents();
  const auto second = SqliteStore::Open({.directory = directory.path()});
  EXPECT_THAT(second.status(), Fails(absl::StatusCode::kFailedPrecondition, ErrorReason::kStoreRefused));
  EXPECT_THAT(std::string(second.status().message()),
              AllOf(HasSubstr(directory.file("normserve.lock")), HasSubstr(absl::StrCat("process ", getpid()))));
  EXPECT_TRUE(directory.Contents() == before);
  EXPECT_TRUE(Put(**first, Change("a", 1, 2)).ok());
}

TEST(RefusedOpenTest, ADirectoryThatIsAFileIsRefused) {
  ScratchDirectory directory;
  directory.Write("data", "mine");
  const auto opened = SqliteStore::Open({.directory = directory.file("data")});
  EXPECT_THAT(opened.status(), Fails(absl::StatusCode::kFailedPrecondition, ErrorReason::kStoreRefused));
  EXPECT_THAT(std::string(opened.status().message()), HasSubstr(directory.file("data")));
  EXPECT_EQ(directory.Read("data"), "mine");
}

TEST(RefusedOpenTest, AMissingDirectoryIsMadeForThisUserAlone) {
  ScratchDirectory directory;
  const auto opened = SqliteStore::Open({.directory = directory.file("data")});
  ASSERT_TRUE(opened.ok()) << opened.status();
  struct stat entry = {};
  ASSERT_EQ(stat(directory.file("data").c_str(), &entry), 0);
  EXPECT_EQ(entry.st_mode & 0777, 0700u);
  EXPECT_THAT(SqliteStore::Open({.directory = directory.file("no/such")}).status(),
              Fails(absl::StatusCode::kUnavailable, ErrorReason::kStoreRefused));
}

// Root may write everything, so the refusal is looked for as another user, in a child. From within the folder above,
// whose own path that user need not be allowed to walk.
std::string MessageAsNobody(const std::string& path) {
  const std::filesystem::path above = std::filesystem::path(path).parent_path();
  const std::string directory = std::filesystem::path(path).filename();
  int ends[2];
  if (pipe(ends) != 0) return "no pipe";
  const pid_t child = fork();
  if (child == 0) {
    if (chdir(above.c_str()) != 0) _exit(1);
    if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0)) _exit(1);
    const std::string message(SqliteStore::Open({.directory = directory}).status().message());
    (void)!write(ends[1], message.data(), message.size());
    _exit(0);
  }
  close(ends[1]);
  char text[4096];
  const ssize_t size_bytes = read(ends[0], text, sizeof(text));
  close(ends[0]);
  waitpid(child, nullptr, 0);
  return std::string(text, size_bytes > 0 ? size_bytes : 0);
}

TEST(RefusedOpenTest, WhatCannotBeWrittenIsNamed) {
  ScratchDirectory directory;
  MakeStore(directory.path());
  const auto before = directory.Contents();
  const std::string name = std::filesystem::path(directory.path()).filename();
  chmod(directory.path().c_str(), 0555);
  chmod(directory.file("normserve.db").c_str(), 0666);
  EXPECT_THAT(MessageAsNobody(directory.path()), AllOf(HasSubstr(name + ": "), HasSubstr("read and write")));
  chmod(directory.path().c_str(), 0777);
  chmod(directory.file("normserve.db").c_str(), 0444);
  EXPECT_THAT(MessageAsNobody(directory.path()),
              AllOf(HasSubstr(name + "/normserve.db: "), HasSubstr("read and write")));
  EXPECT_TRUE(directory.Contents() == before);
  chmod(directory.path().c_str(), 0700);
}

TEST(DamagedSessionTest, IsLostAloneAndTheOthersAreServed) {
  ScratchDirectory directory;
  MakeStore(directory.path());
  std::string bytes = directory.Read("normserve.db");
  // The link from one page of the vector to the next.
  const size_t page = bytes.rfind("value;value;") / 4096 - 2;
  bytes.replace(page * 4096, 4, std::string(4, '\xee'));
  directory.Write("normserve.db", bytes);
  auto store = SqliteStore::Open({.directory = directory.path()});
  ASSERT_TRUE(store.ok()) << store.status();
  EXPECT_EQ((*store)->ListSessions()->size(), 2u);
  const auto lost = (*store)->Load("a");
  EXPECT_THAT(lost.status(), Fails(absl::StatusCode::kDataLoss, ErrorReason::kStoredDataLost));
  EXPECT_THAT(std::string(lost.status().message()), HasSubstr(directory.file("normserve.db")));
  EXPECT_TRUE((*store)->Load("b").ok());
  EXPECT_TRUE(Put(**store, Change("b", 2, 2)).ok());
}

}  // namespace
}  // namespace normserve
