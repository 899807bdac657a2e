/* SPDX-License-Identifier: MIT */
/* Text of numbers and JSON: pure functions, independent of the process' locale. */
#ifndef RG_ROW_SCALAR_H
#define RG_ROW_SCALAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Significant decimal digits: the value is 0.d[0]d[1]... * 10^point; n == 0 is zero. */
typedef struct rg__digits {
    bool negative;
    bool cut; /* there were more digits than room, and not only zeros */
    int n, point;
    char d[128]; /* '0' to '9'; d[0] is not '0' */
} rg__digits;

/* [+-]digits[.digits][e[+-]digits]; false when it is not that. */
bool rg__digits_parse(rg__digits *out, const char *p, size_t len);
/* The fewest digits that give a finite v back; single: as a float. */
void rg__digits_of(rg__digits *out, double v, bool single);
/* Rounds to `scale` decimals, half away from zero. */
void rg__digits_round(rg__digits *x, uint32_t scale);
/* Canonical text of DECIMAL(precision, scale), at most RG__DECIMAL_MAX bytes; 0 when it does not
 * fit exactly. */
enum { RG__DECIMAL_MAX = 1 + 65 + 1 + 30 };
size_t rg__digits_format(const rg__digits *x, uint32_t precision, uint32_t scale, char *out);

/* Shortest text of a number as a person writes it, NUL-terminated: "1.5", "-3e+200", "nan". */
enum { RG__NUMBER_MAX = 32 };
size_t rg__number_format(double v, bool single, char out[RG__NUMBER_MAX]);
/* The same with so many significant digits, which must be enough for who reads it (9 tell floats apart, 17
 * doubles); fewer when they are all there is. */
size_t rg__number_digits(double v, int digits, char out[RG__NUMBER_MAX]);
/* Text as for rg__digits_parse to a double; false when malformed. Overflow gives an infinity. */
bool rg__number_parse(const char *p, size_t len, double *out);

/* 0 when the text is one JSON value (UTF-8, at most 100 levels, no lone surrogates, no U+0000 as a
 * raw byte), else the number of the first byte at fault, from 1. */
size_t rg__json_fault(const char *p, size_t len);

#endif
