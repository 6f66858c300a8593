/*
 * Where things are kept: the home (registry and default containers) and the runtime directory (sockets,
 * logs). The rules for the runtime directory are in docs/protocol.md.
 */
#ifndef PV_VOLUME_HOME_H
#define PV_VOLUME_HOME_H

#include "base/error.h"

struct pv_home {
	char *home;      /* $PVOL_HOME, canonical */
	char *runtime;   /* the runtime directory, absolute */
	char *user_home; /* $HOME of the user, for default mount points */
	int home_fd;     /* directory descriptors, -1 when there is none */
	int volumes_fd;  /* home/volumes */
	int runtime_fd;
};

/*
 * Finds both directories; with `create` makes what is missing (mode 0700). Refuses (-EPERM) directories that
 * are not the caller's, are symbolic links, that others may write, or (the runtime directory) may enter.
 * Without `create` missing directories leave their descriptor -1. Caller frees *ret_home.
 */
int pv_home_open(bool create, struct pv_home **ret_home, struct pv_error *err);
struct pv_home *pv_home_free(struct pv_home *home);

/* Whether the runtime directory is still there under its name (it vanishes when somebody cleans /tmp). */
bool pv_home_runtime_present(const struct pv_home *home);

static inline void pv_cleanup_home(struct pv_home **h)
{
	pv_home_free(*h);
}
#define pv_autohome __attribute__((cleanup(pv_cleanup_home)))

#endif
