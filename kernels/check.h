// Broken invariants end the process in every build; bad input never does.
#pragma once

#include <cstdio>
#include <cstdlib>

// Ends the process with file, line and the broken condition. For what only a bug in this program can cause.
#define NORMSERVE_CHECK(condition)                                                           \
  do {                                                                                       \
    if (!(condition)) [[unlikely]] {                                                         \
      std::fprintf(stderr, "%s:%d: broken invariant: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                          \
    }                                                                                        \
  } while (false)
