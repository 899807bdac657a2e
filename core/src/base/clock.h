/* SPDX-License-Identifier: MIT */
/* Time: monotonic for deadlines, wall for stamps. */
#ifndef RG_BASE_CLOCK_H
#define RG_BASE_CLOCK_H

#include <stdint.h>

#define RG__NO_DEADLINE INT64_MAX

int64_t rg__now_ms(void); /* CLOCK_MONOTONIC */
/* The same some ms late, for what is asked very often. */
int64_t rg__coarse_ms(void);
int64_t rg__now_us(void); /* CLOCK_MONOTONIC */
int64_t rg__wall_us(void); /* CLOCK_REALTIME, microseconds since 1970 */
/* Milliseconds until the deadline, 0 when past, at most INT32_MAX; INT32_MAX when there is none. */
int rg__left_ms(int64_t deadline_ms);
/* The earlier of the deadline and now + ms (ms <= 0: the deadline). */
int64_t rg__deadline_within(int64_t deadline_ms, int64_t ms);
void rg__sleep_ms(int64_t ms);
/* Fills with unpredictable bytes (getrandom). */
void rg__random(void *p, uint32_t len);

#endif
