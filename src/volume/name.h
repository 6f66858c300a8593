/*
 * Names of volumes. A volume's name is also its pool's, part of a device-mapper name (pvol-NAME) and of file
 * names, so it must be good for all of them.
 */
#ifndef PV_VOLUME_NAME_H
#define PV_VOLUME_NAME_H

#include "base/error.h"

#define PV_VOLUME_NAME_MAX 100

/* 0, or -EINVAL saying what is wrong with it. */
int pv_volume_name_check(const char *name, struct pv_error *err);

/* Volume part of "T", "T/docs" or "T/docs@snap" into `ret_name`; -EINVAL when it is no volume name. */
int pv_volume_name_of(const char *dataset, char ret_name[PV_VOLUME_NAME_MAX + 1], struct pv_error *err);

#endif
