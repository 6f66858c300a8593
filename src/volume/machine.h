/*
 * What the machine can do for a volume: memory that can be locked, swap that is encrypted.
 */
#ifndef PV_VOLUME_MACHINE_H
#define PV_VOLUME_MACHINE_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

/*
 * Names the active swap areas that are not encrypted (dm-crypt) and not in memory (zram): 1 there are, with
 * their paths separated by blanks in ret_areas; 0 none; -errno unknown.
 */
int pv_machine_plain_swap(char *ret_areas, size_t size);

/* As above from the text of /proc/swaps; is_safe tells of a device path whether it is encrypted or in memory.
 */
int pv_machine_parse_swaps(const char *text, bool (*is_safe)(const char *path), char *ret_areas, size_t size);

/* Whether secrets of a volume find room in locked memory now: 0, or -ENOMEM with the remedy. */
int pv_machine_check_locked_memory(struct pv_error *err);

/*
 * Whether an ordinary mount through FUSE is possible: /dev/fuse, and for ordinary users fusermount3. 0 or
 * -errno with the remedy. *ret_allow_other (may be NULL): whether mounts may be shown to other users, which
 * root always may and others with user_allow_other in /etc/fuse.conf.
 */
int pv_machine_check_fuse(bool *ret_allow_other, struct pv_error *err);

/* Physical memory, or the control group's limit if that is smaller. */
uint64_t pv_machine_memory(void);

#endif
