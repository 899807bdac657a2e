/* SPDX-License-Identifier: MIT */
/* Propagation: one table. */
#include "tx/tx.h"

static const struct {
    uint8_t exists, none;
} actions[] = {
    [RG_PROPAGATION_REQUIRED] = {RG_TX_JOIN, RG_TX_CREATE},
    [RG_PROPAGATION_SUPPORTS] = {RG_TX_JOIN, RG_TX_RUN_WITHOUT},
    [RG_PROPAGATION_MANDATORY] = {RG_TX_JOIN, RG_TX_REFUSE},
    [RG_PROPAGATION_REQUIRES_NEW] = {RG_TX_SUSPEND_AND_CREATE, RG_TX_CREATE},
    [RG_PROPAGATION_NOT_SUPPORTED] = {RG_TX_SUSPEND, RG_TX_RUN_WITHOUT},
    [RG_PROPAGATION_NEVER] = {RG_TX_REFUSE, RG_TX_RUN_WITHOUT},
    [RG_PROPAGATION_NESTED] = {RG_TX_SAVEPOINT, RG_TX_CREATE},
};

int rg_tx_action_of(int propagation, int exists) {
    if (propagation < 0 || (size_t)propagation >= sizeof actions / sizeof *actions)
        return RG_EINVALID;
    return exists ? actions[propagation].exists : actions[propagation].none;
}
