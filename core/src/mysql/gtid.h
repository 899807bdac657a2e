/* SPDX-License-Identifier: MIT */
/* Positions in the history of a server, as MariaDB and MySQL write them:
 *   MariaDB  domain-server-sequence, ...        0-1-42,1-3-7      one number a domain
 *   MySQL    uuid:from-to:from-to, ...          3e11fa47-...:1-42:45, also with tags
 * A source is what counts on its own: a domain, a uuid, a uuid with a tag. */
#ifndef RG_MYSQL_GTID_H
#define RG_MYSQL_GTID_H

#include "base/slice.h"

enum { RG__GTID_SOURCE = 80 };

/* One transaction of one source. */
typedef struct rg__gtid {
    char source[RG__GTID_SOURCE];
    uint64_t n;
} rg__gtid;

/* The last transaction of each source in a position: how many, -1 when the text is none or names
 * more than cap sources. Pure. */
int rg__gtid_read(rg__slice position, rg__gtid *out, int cap);
/* Does a position hold that transaction? A text that is none holds nothing. Pure. */
bool rg__gtid_reached(rg__slice position, const rg__gtid *g);

#endif
