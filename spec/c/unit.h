/* SPDX-License-Identifier: MIT */
/* A unit framework in one header. Each file of tests is a program: TEST(name) { ... } registers a
 * test, UNIT_MAIN runs them in order of declaration. Every check is counted; a failed one prints
 * where and what, and the test goes on (REQUIRE ends it). Output is TAP; the last line is
 * "N passed, N failed" (tests), the exit code 1 when one failed or when there was none. An argument
 * runs only the tests whose names contain it.
 *
 * A program with a main of its own checks wherever it likes and ends with `return unit_report();`,
 * which counts checks instead of tests. */
#ifndef RG_SPEC_UNIT_H
#define RG_SPEC_UNIT_H

#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct unit_test {
    const char *name;
    void (*run)(void);
} unit_test;

enum { UNIT_MAX = 512 };
__attribute__((unused)) static unit_test unit_tests[UNIT_MAX];
__attribute__((unused)) static int unit_n;
static unsigned long unit_checks, unit_faults; /* checks made; those that failed */

/* What a busy machine may add to a time that a test bounds: such a bound tells an answer from a
 * wait without end, it does not measure. */
enum { BUSY_MS = 1000 };

#define TEST(name)                                                                                 \
    static void test_##name(void);                                                                 \
    __attribute__((constructor)) static void register_##name(void) {                               \
        if (unit_n == UNIT_MAX) abort();                                                           \
        unit_tests[unit_n++] = (unit_test){#name, test_##name};                                    \
    }                                                                                              \
    static void test_##name(void)

__attribute__((unused)) static bool unit_check(bool ok, const char *file, int line,
                                               const char *what) {
    unit_checks++;
    if (ok) return true;
    unit_faults++;
    printf("# %s:%d: %s\n", file, line, what);
    return false;
}

__attribute__((unused)) static bool unit_int(int64_t got, int64_t want, const char *file, int line,
                                             const char *what) {
    char text[512];
    snprintf(text, sizeof text, "%s is %" PRId64 ", not %" PRId64, what, got, want);
    return unit_check(got == want, file, line, text);
}

__attribute__((unused)) static bool unit_bytes(const void *got, size_t got_len, const void *want,
                                               size_t want_len, const char *file, int line,
                                               const char *what) {
    char text[1024];
    bool ok = got_len == want_len && (got_len == 0 || memcmp(got, want, got_len) == 0);
    snprintf(text, sizeof text, "%s is \"%.*s\", not \"%.*s\"", what,
             got_len < 400 ? (int)got_len : 400, got ? (const char *)got : "",
             want_len < 400 ? (int)want_len : 400, want ? (const char *)want : "");
    return unit_check(ok, file, line, text);
}

__attribute__((unused)) static bool unit_str(const char *got, const char *want, const char *file,
                                             int line, const char *what) {
    if (!got) return unit_check(!want, file, line, what);
    return unit_bytes(got, strlen(got), want, want ? strlen(want) : 0, file, line, what);
}

#define CHECK(x) unit_check((x) ? true : false, __FILE__, __LINE__, #x)
#define CHECK_EQ_INT(got, want)                                                                    \
    unit_int((int64_t)(got), (int64_t)(want), __FILE__, __LINE__, #got)
#define CHECK_STR(got, want) unit_str((got), (want), __FILE__, __LINE__, #got)
/* Bytes given as pointer and length against a literal. */
#define CHECK_BYTES(p, n, literal)                                                                 \
    unit_bytes((p), (n), "" literal, sizeof(literal) - 1, __FILE__, __LINE__, #p)
#define REQUIRE(x)                                                                                 \
    do                                                                                             \
        if (!CHECK(x)) return;                                                                     \
    while (0)

__attribute__((unused)) static int unit_main(int argc, char **argv) {
    int passed = 0, failed = 0;
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int i = 0; i < unit_n; i++) {
        if (argc > 1 && !strstr(unit_tests[i].name, argv[1])) continue;
        unsigned long before = unit_faults;
        unit_tests[i].run();
        bool ok = unit_faults == before;
        passed += ok;
        failed += !ok;
        printf("%s %d - %s\n", ok ? "ok" : "not ok", passed + failed, unit_tests[i].name);
    }
    printf("1..%d\n# %lu checks\n%d passed, %d failed\n", passed + failed, unit_checks, passed,
           failed);
    return failed || passed == 0 ? 1 : 0;
}

__attribute__((unused)) static int unit_report(void) {
    printf("%lu passed, %lu failed\n", unit_checks - unit_faults, unit_faults);
    return unit_faults || unit_checks == 0 ? 1 : 0;
}

#define UNIT_MAIN                                                                                  \
    int main(int argc, char **argv) { return unit_main(argc, argv); }

#endif
