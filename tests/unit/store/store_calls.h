// Writes to a StateStore and waits for its answer; makes the writes that tests need.
#pragma once

#include <future>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/store/state_store.h"

namespace normserve {

// Queues a write; the future has the store's answer.
inline std::future<absl::Status> StartWrite(StateStore& store, StoreWrite write) {
  auto promise = std::make_shared<std::promise<absl::Status>>();
  auto answer = promise->get_future();
  store.Write(std::move(write), [promise](absl::Status status) { promise->set_value(std::move(status)); });
  return answer;
}

inline absl::Status Put(StateStore& store, StoreWrite write) { return StartWrite(store, std::move(write)).get(); }

inline absl::Status Put(StateStore& store, SessionWrite write, Durability durability = Durability::kCommit) {
  StoreWrite all{.durability = durability};
  all.sessions.push_back(std::move(write));
  return Put(store, std::move(all));
}

// A session's first write: "name of UID", sequence 1.
inline SessionWrite Creation(const std::string& uid) {
  return {.kind = SessionWrite::Kind::kCreate,
          .uid = uid,
          .name = absl::StrCat("name of ", uid),
          .sequence = 1,
          .head = absl::StrCat("head of ", uid, " at 1")};
}

inline SessionWrite Change(const std::string& uid, int64_t epoch, int64_t sequence) {
  return {.uid = uid, .epoch = epoch, .sequence = sequence, .head = absl::StrCat("head of ", uid, " at ", sequence)};
}

inline SessionWrite Deletion(const std::string& uid, int64_t epoch, int64_t sequence) {
  return {.kind = SessionWrite::Kind::kDelete, .uid = uid, .epoch = epoch, .sequence = sequence};
}

// `size_bytes` of text that differs with `seed` all along.
inline std::string Pattern(const std::string& seed, size_t size_bytes) {
  std::string bytes;
  while (bytes.size() < size_bytes) absl::StrAppend(&bytes, seed, ";");
  bytes.resize(size_bytes);
  return bytes;
}

}  // namespace normserve
