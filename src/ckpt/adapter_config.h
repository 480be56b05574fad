/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What adapter_config.json, which PEFT writes beside an adapter, says; and whether the adapter's tensors are
 * like that.
 */
#ifndef CKPTFS_CKPT_ADAPTER_CONFIG_H
#define CKPTFS_CKPT_ADAPTER_CONFIG_H

#include "ckpt/folder.h"
#include "ckpt/loadable.h"

struct adapter_config {
    bool found;    /* there is one, and it is JSON */
    bool lora;     /* its weights are pairs of low rank, and of modules */
    int64_t rank;  /* 0: not known */
    bool patterns; /* some modules have another rank */
    char *base;    /* the name or directory of the model that it is for; NULL: not said. Not to be trusted */
};

/* 0 also when there is none, or it cannot be understood; a negative errno of reading. The caller gives it to
 * adapter_config_release in any case. */
errint adapter_config_read(const struct folder *folder, const struct folder_listing *listing,
                           struct adapter_config *out);
void adapter_config_release(struct adapter_config *config);

/*
 * Whether the adapter's pairs are whole, have the rank, and fit the base model's tensors. `base` NULL: that
 * is not here; then the verdict is "no" or has no state but "not checked", and the caller says why.
 * `base_name`: what it is called in the verdict. 0 or -ENOMEM.
 */
errint adapter_config_check(const struct adapter_config *config, const struct model *adapter,
                            const struct model *base, const char *base_name, struct loadable *out);

#define cleanup_adapter_config __attribute__((cleanup(adapter_config_release)))

#endif
