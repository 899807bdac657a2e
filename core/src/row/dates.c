/* SPDX-License-Identifier: MIT */
/* Text of dates and times. All of them are UTC; the calendar is the proleptic Gregorian one. */
#include "row/row.h"

#define SECOND INT64_C(1000000)
#define DAY (86400 * SECOND)
#define MAX_TIME (((838 * 60 + 59) * 60 + 59) * SECOND + SECOND - 1)

enum { FIRST_DAY = -719528, LAST_DAY = 2932896 }; /* 0000-01-01 and 9999-12-31 */
enum { MIN_YEAR = 1000 };                         /* the server's documented range */

/* ---- the calendar, in eras of 400 years that begin in March (Howard Hinnant's algorithms) ---- */

int32_t rg__days_from_civil(int64_t y, unsigned m, unsigned d) {
    y -= m <= 2;
    int64_t era = (y >= 0 ? y : y - 399) / 400;
    unsigned year = (unsigned)(y - era * 400);
    unsigned day = (153 * (m > 2 ? m - 3 : m + 9) + 2) / 5 + d - 1;
    unsigned of_era = year * 365 + year / 4 - year / 100 + day;
    return (int32_t)(era * 146097 + (int64_t)of_era - 719468);
}

void rg__civil_from_days(int32_t days, int *y, unsigned *m, unsigned *d) {
    int64_t z = (int64_t)days + 719468;
    int64_t era = (z >= 0 ? z : z - 146096) / 146097;
    unsigned of_era = (unsigned)(z - era * 146097);
    unsigned year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    unsigned day = of_era - (365 * year + year / 4 - year / 100);
    unsigned month = (5 * day + 2) / 153;
    *d = day - (153 * month + 2) / 5 + 1;
    *m = month < 10 ? month + 3 : month - 9;
    *y = (int)(year + era * 400) + (*m <= 2);
}

static bool leap(int y) { return y % 4 == 0 && (y % 100 != 0 || y % 400 == 0); }

static int days_in(int y, int m) {
    static const uint8_t days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    return m == 2 && leap(y) ? 29 : days[m - 1];
}

/* ---- parsing ---- */

typedef struct scan {
    const char *p, *end;
} scan;

/* Exactly n digits, or -1. */
static int take_digits(scan *s, int n) {
    if (s->end - s->p < n) return -1;
    int v = 0;
    for (int i = 0; i < n; i++) {
        if (s->p[i] < '0' || s->p[i] > '9') return -1;
        v = v * 10 + (s->p[i] - '0');
    }
    s->p += n;
    return v;
}

static bool accept(scan *s, char c) {
    if (s->p == s->end || *s->p != c) return false;
    s->p++;
    return true;
}

static bool take_date(scan *s, int32_t *days) {
    int y = take_digits(s, 4);
    if (y < MIN_YEAR || !accept(s, '-')) return false;
    int m = take_digits(s, 2);
    if (m < 1 || m > 12 || !accept(s, '-')) return false;
    int d = take_digits(s, 2);
    if (d < 1 || d > days_in(y, m)) return false;
    *days = rg__days_from_civil(y, (unsigned)m, (unsigned)d);
    return true;
}

/* [.digits] as microseconds; -1 when malformed, -2 when there is more than microseconds. */
static int64_t take_fraction(scan *s) {
    if (!accept(s, '.')) return 0;
    int64_t us = 0, unit = SECOND / 10;
    const char *start = s->p;
    for (; s->p < s->end && *s->p >= '0' && *s->p <= '9'; s->p++, unit /= 10) {
        if (unit == 0 && *s->p != '0') return -2;
        us += unit * (*s->p - '0');
    }
    return s->p == start ? -1 : us;
}

/* :MM[:SS[.f]] after the hours: microseconds, or as take_fraction. */
static int64_t take_below_hours(scan *s) {
    if (!accept(s, ':')) return -1;
    int minutes = take_digits(s, 2), seconds = 0;
    if (minutes < 0 || minutes > 59) return -1;
    if (!accept(s, ':')) return minutes * 60 * SECOND;
    seconds = take_digits(s, 2);
    if (seconds < 0 || seconds > 59) return -1;
    int64_t fraction = take_fraction(s);
    return fraction < 0 ? fraction : (minutes * 60 + seconds) * SECOND + fraction;
}

static int64_t take_clock(scan *s) {
    int hours = take_digits(s, 2);
    if (hours < 0 || hours > 23) return -1;
    int64_t below = take_below_hours(s);
    return below < 0 ? below : hours * 3600 * SECOND + below;
}

/* Nothing, Z, or an offset: 0 when UTC, 1 another one, -1 malformed. */
static int take_zone(scan *s) {
    if (s->p == s->end || accept(s, 'Z') || accept(s, 'z')) return 0;
    if (!accept(s, '+') && !accept(s, '-')) return -1;
    int hours = take_digits(s, 2);
    accept(s, ':');
    int minutes = s->p == s->end ? 0 : take_digits(s, 2);
    if (hours < 0 || minutes < 0) return -1;
    return hours != 0 || minutes != 0;
}

int rg__date_parse(const char *p, size_t len, int32_t *days) {
    scan s = {p, p + len};
    return take_date(&s, days) && s.p == s.end ? RG_OK : RG_EINVALID;
}

static int64_t take_time_of_day(scan *s, const char **why) {
    if (!accept(s, 'T') && !accept(s, 't') && !accept(s, ' ')) return -1;
    int64_t us = take_clock(s);
    if (us == -2) *why = "more than 6 decimals of a second";
    if (us < 0) return us;
    int zone = take_zone(s);
    if (zone > 0) *why = "time must be in UTC";
    return zone == 0 ? us : -1;
}

int rg__datetime_parse(const char *p, size_t len, int64_t *us, const char **why) {
    scan s = {p, p + len};
    int32_t days;
    const char *reason = "invalid date";
    int64_t clock = 0;
    bool ok = take_date(&s, &days);
    if (ok && s.p != s.end) clock = take_time_of_day(&s, &reason);
    ok = ok && clock >= 0 && s.p == s.end;
    if (ok) *us = days * DAY + clock;
    else if (why) *why = reason;
    return ok ? RG_OK : RG_EINVALID;
}

int rg__time_parse(const char *p, size_t len, int64_t *us) {
    scan s = {p, p + len};
    bool negative = accept(&s, '-');
    int hours = take_digits(&s, 3);
    if (hours < 0) hours = take_digits(&s, 2);
    if (hours < 0) hours = take_digits(&s, 1);
    int64_t below = hours < 0 || hours > 838 ? -1 : take_below_hours(&s);
    if (below < 0 || s.p != s.end) return RG_EINVALID;
    int64_t v = hours * 3600 * SECOND + below;
    *us = negative ? -v : v;
    return RG_OK;
}

/* ---- formatting: values out of range are shown as the nearest one in it ---- */

static int64_t clamp(int64_t v, int64_t low, int64_t high) {
    return v < low ? low : v > high ? high : v;
}

static const char two_digits[] =
    "0001020304050607080910111213141516171819202122232425262728293031323334353637383940414243444546"
    "47484950515253545556575859606162636465666768697071727374757677787980818283848586878889909192"
    "93949596979899";

static char *put_two(char *out, unsigned v) {
    memcpy(out, two_digits + (size_t)2 * v, 2);
    return out + 2;
}

static char *put_digits(char *out, unsigned v, int n) {
    for (int i = n - 1; i >= 0; i--, v /= 10) out[i] = (char)('0' + v % 10);
    return out + n;
}

size_t rg__date_format(int32_t days, char *out) {
    int y;
    unsigned m, d;
    rg__civil_from_days((int32_t)clamp(days, FIRST_DAY, LAST_DAY), &y, &m, &d);
    char *p = put_two(put_two(out, (unsigned)y / 100), (unsigned)y % 100);
    *p++ = '-';
    p = put_two(p, m);
    *p++ = '-';
    put_two(p, d);
    return 10;
}

/* HH:MM:SS, with .ffffff when asked for. */
static char *put_clock(char *out, int64_t us, bool fraction) {
    unsigned seconds = (unsigned)((uint64_t)us / SECOND), hours = seconds / 3600;
    char *p = hours > 99 ? put_digits(out, hours, 3) : put_two(out, hours);
    *p++ = ':';
    p = put_two(p, seconds / 60 % 60);
    *p++ = ':';
    p = put_two(p, seconds % 60);
    if (!fraction) return p;
    *p++ = '.';
    unsigned below = (unsigned)((uint64_t)us % SECOND);
    return put_two(put_two(put_two(p, below / 10000), below / 100 % 100), below % 100);
}

static size_t format_datetime(int64_t us, char *out, bool always) {
    us = clamp(us, FIRST_DAY * DAY, LAST_DAY * DAY + DAY - 1);
    int64_t days = us / DAY - (us % DAY < 0);
    int64_t clock = us - days * DAY;
    /* moments of one table are often of a few days */
    static _Thread_local struct {
        int32_t day; /* and one, so that 0 is none */
        char text[10];
    } known[64];
    int32_t day = (int32_t)days + 1 - FIRST_DAY;
    unsigned at = (unsigned)day % 64;
    if (known[at].day != day) {
        rg__date_format((int32_t)days, known[at].text);
        known[at].day = day;
    }
    memcpy(out, known[at].text, sizeof known[at].text);
    char *p = out + sizeof known[at].text;
    *p++ = ' ';
    return (size_t)(put_clock(p, clock, always || clock % SECOND) - out);
}

size_t rg__datetime_format(int64_t us, char *out) { return format_datetime(us, out, false); }
size_t rg__datetime_format6(int64_t us, char *out) { return format_datetime(us, out, true); }

size_t rg__time_format(int64_t us, char *out) {
    us = clamp(us, -MAX_TIME, MAX_TIME);
    char *p = out;
    if (us < 0) *p++ = '-';
    uint64_t size = (uint64_t)(us < 0 ? -us : us);
    return (size_t)(put_clock(p, (int64_t)size, size % SECOND != 0) - out);
}

int rg_text_date(int32_t days, char *out) { return (int)rg__date_format(days, out); }
int rg_text_datetime(int64_t us, char *out) { return (int)format_datetime(us, out, false); }
int rg_text_time(int64_t us, char *out) { return (int)rg__time_format(us, out); }
