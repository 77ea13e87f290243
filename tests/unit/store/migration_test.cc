// Files of older schema versions, and files that were opened again and again.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <memory>

#include "server/store/schema.h"
#include "server/store/sqlite_store.h"
#include "sqlite3.h"
#include "tests/unit/store/scratch_directory.h"
#include "tests/unit/store/store_calls.h"

namespace normserve {
namespace {

using ::testing::ElementsAre;

int64_t QueryFile(const std::string& file, const std::string& sql) {
  auto connection = SqliteConnection::Open(file, "", SQLITE_OPEN_READWRITE);
  const auto value = connection.ok() ? (*connection)->QueryInteger(sql) : connection.status();
  EXPECT_TRUE(value.ok()) << value.status();
  return value.ok() ? *value : -1;
}

// "ok" is what SQLite answers for a sound file.
bool IsSound(const std::string& file) {
  auto connection = SqliteConnection::Open(file, "", SQLITE_OPEN_READWRITE);
  auto statement = SqliteStatement::Prepare(**connection, "PRAGMA integrity_check");
  SqliteStatement::Run run(*statement);
  return run.Step() == SQLITE_ROW && run.BytesAt(0) == "ok";
}

std::unique_ptr<SqliteStore> OpenStore(const std::string& directory) {
  auto store = SqliteStore::Open({.directory = directory});
  EXPECT_TRUE(store.ok()) << store.status();
  return store.ok() ? *std::move(store) : nullptr;
}

// What the program that made schema_v1.db wrote: sessions uid-0 to uid-2 at their fourth write. The vectors of uid-2
// take more than a page.
void ExpectVersionOneContents(SqliteStore& store, int64_t epoch) {
  const auto heads = store.ListSessions();
  ASSERT_TRUE(heads.ok()) << heads.status();
  ASSERT_EQ(heads->size(), 3u);
  for (int i = 0; i < 3; ++i) {
    const std::string uid = absl::StrCat("uid-", i);
    const size_t size_bytes = i == 2 ? 5000 : 64;
    const auto session = store.Load(uid);
    ASSERT_TRUE(session.ok()) << session.status();
    EXPECT_EQ(session->head.name, absl::StrCat("model/layer", i));
    EXPECT_EQ(session->head.epoch, epoch);
    EXPECT_EQ(session->head.sequence, 4);
    EXPECT_EQ(session->head.record, absl::StrCat("head of ", uid, " at 4"));
    ASSERT_EQ(session->current.size(), 2u);
    EXPECT_EQ(session->current[0].data, Pattern(absl::StrCat(uid, " current 1 1"), size_bytes));
    EXPECT_EQ(session->current[1].data, Pattern(absl::StrCat(uid, " current 2 4"), size_bytes));
    EXPECT_EQ(session->current[1].version, 4);
    const auto memory = store.LoadMemory(uid);
    ASSERT_TRUE(memory.ok()) << memory.status();
    ASSERT_EQ(memory->kept.size(), 2u);
    EXPECT_EQ(memory->kept[0].data, Pattern(absl::StrCat(uid, " kept 2"), 48));
    EXPECT_EQ(memory->kept[1].version, 3);
    ASSERT_EQ(memory->requests.size(), 3u);
    EXPECT_EQ(memory->requests[2].request_id, absl::StrCat("request-", uid, "-4"));
    EXPECT_EQ(memory->requests[2].record, "answer 4");
    EXPECT_TRUE(session->snapshots.empty());
  }
  const auto requests = store.ListServerRequests();
  ASSERT_TRUE(requests.ok() && requests->size() == 3);
  EXPECT_EQ(requests->back().record, "created model/layer2");
}

class MigrationTest : public ::testing::Test {
 protected:
  void SetUp() override { std::filesystem::copy_file(NORMSERVE_SCHEMA_V1, directory_.file("normserve.db")); }

  ScratchDirectory directory_;
};

TEST_F(MigrationTest, AFileOfVersionOneKeepsEverythingAndTakesWhatIsNew) {
  ASSERT_EQ(QueryFile(directory_.file("normserve.db"), "PRAGMA user_version"), 1);
  auto store = OpenStore(directory_.path());
  ASSERT_NE(store, nullptr);
  ExpectVersionOneContents(*store, 2);
  SessionWrite change = Change("uid-1", 2, 5);
  change.snapshot = StoredSnapshot{"new in version 2", "record"};
  change.history = {{7, "new in version 5"}};
  EXPECT_TRUE(Put(*store, change, Durability::kFlush).ok());
  EXPECT_TRUE(Put(*store, Deletion("uid-0", 2, 5)).ok());
  EXPECT_TRUE(Put(*store, Creation("another")).ok());
  store = nullptr;
  EXPECT_EQ(QueryFile(directory_.file("normserve.db"), "PRAGMA user_version"), 6);
  EXPECT_EQ(SchemaVersion(), 6);
  // A session's requests lie together: else reading them takes a page each.
  EXPECT_EQ(QueryFile(directory_.file("normserve.db"),
                      "SELECT count(*) FROM sqlite_schema WHERE name = 'requests' AND sql LIKE '%WITHOUT ROWID'"),
            1);
  store = OpenStore(directory_.path());
  EXPECT_EQ(store->ListSessions()->size(), 3u);
  ASSERT_EQ(store->Load("uid-1")->snapshots.size(), 1u);
  EXPECT_EQ(store->Load("uid-1")->snapshots[0].name, "new in version 2");
  ASSERT_EQ(store->Load("uid-1")->history.size(), 1u);
  EXPECT_EQ(store->Load("uid-1")->history[0].record, "new in version 5");
}

TEST_F(MigrationTest, AMigratedFileSaysSoInItsOwnHeaderAtOnce) {
  auto store = OpenStore(directory_.path());
  ASSERT_NE(store, nullptr);
  const std::string bytes = directory_.Read("normserve.db");
  EXPECT_THAT(bytes.substr(60, 4), ElementsAre('\0', '\0', '\0', '\6'));
}

TEST_F(MigrationTest, HundredsOfRestartsLoseNothing) {
  std::string current = directory_.path();
  std::unique_ptr<ScratchDirectory> copy;
  std::map<std::string, int64_t> sequences = {{"uid-0", 4}, {"uid-1", 4}, {"uid-2", 4}};
  for (int64_t start = 1; start <= 300; ++start) {
    auto store = OpenStore(current);
    ASSERT_NE(store, nullptr);
    if (start == 1) ExpectVersionOneContents(*store, 2);
    for (auto& [uid, sequence] : sequences) {
      const auto session = store->Load(uid);
      ASSERT_TRUE(session.ok()) << session.status();
      EXPECT_EQ(session->head.sequence, sequence);
      EXPECT_EQ(session->head.epoch, start + 1);
      if (sequence > 4) {
        EXPECT_EQ(session->current.back().data, Pattern(absl::StrCat(uid, sequence), 3000 + start % 7));
      }
      SessionWrite change = Change(uid, start + 1, ++sequence);
      change.current = {{VectorKind::kShadow, sequence, Pattern(absl::StrCat(uid, sequence), 3000 + (start + 1) % 7)}};
      change.request = StoredRequest{sequence % 5, sequence, absl::StrCat("r", sequence), "answer"};
      const absl::Status status = Put(*store, change, start % 2 == 0 ? Durability::kCommit : Durability::kFlush);
      ASSERT_TRUE(status.ok()) << status;
    }
    if (start % 3 == 0) continue;  // closed in order
    // Killed: the files as they are now are what the next start finds.
    auto next = std::make_unique<ScratchDirectory>();
    for (const char* name : {"normserve.db", "normserve.db-wal", "normserve.lock"}) {
      std::filesystem::copy_file(current + "/" + name, next->file(name));
    }
    store = nullptr;
    copy = std::move(next);
    current = copy->path();
  }
  EXPECT_TRUE(IsSound(current + "/normserve.db"));
}

}  // namespace
}  // namespace normserve
