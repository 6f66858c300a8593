/*
 * Where key bytes come from: the terminal, a file, the random generator. Runs in the command line program,
 * which sends the bytes to the keeper through a pipe. Every function reads straight into secret memory.
 */
#ifndef PV_KEY_KEY_H
#define PV_KEY_KEY_H

#include "base/error.h"
#include "base/secret.h"

#define PV_KEY_PROMPT_MAX 512U       /* bytes of a typed passphrase, as cryptsetup's */
#define PV_KEY_FILE_MAX 65536U       /* bytes of a key file: what fits into a pipe (pv_secret_pipe) */
#define PV_KEY_PASSPHRASE_MAX 65536U /* bytes of a passphrase file */
#define PV_KEY_RECOVERY_SIZE 71U     /* bytes of a recovery key: 8 groups of 8 and 7 dashes */

/*
 * Asks on the controlling terminal (/dev/tty), without echo; `question` is shown as it is ("Passphrase for T:
 * "). The line's end is not part of the secret. The terminal is restored in every case, also when a signal
 * arrives: then the signal is delivered afterwards to the handlers in force before; if the process survives
 * it, -EINTR (after a stop and continue the question is asked again). -ENXIO: no terminal (the remedy names
 * --passphrase-file). -ENODATA: empty, or end of input. -EMSGSIZE: too long. Not for more than one thread at
 * a time (signal handlers are the process's).
 */
int pv_key_prompt(const char *question, struct pv_secret **ret_secret, struct pv_error *err);

/* For a new passphrase: asks `question`, then `again`, up to three times until both are equal; else -EAGAIN.
 */
int pv_key_prompt_new(
	const char *question, const char *again, struct pv_secret **ret_secret, struct pv_error *err);

/*
 * Contents of the file less one trailing newline; "-" is standard input. At most PV_KEY_PASSPHRASE_MAX bytes,
 * empty is -ENODATA. *ret_exposed (may be NULL) is true when others than the owner may read the file, which
 * is worth a warning.
 */
int pv_key_passphrase_file(
	const char *path, struct pv_secret **ret_secret, bool *ret_exposed, struct pv_error *err);

/* All bytes of a key file, newlines too, as cryptsetup's --key-file; at most PV_KEY_FILE_MAX. */
int pv_key_keyfile(const char *path, struct pv_secret **ret_secret, bool *ret_exposed, struct pv_error *err);

/*
 * A new recovery key: 256 random bits as 64 characters of modhex (cbdefghijklnrtuv, which are at the same
 * place on all Latin keyboards), a dash after each 8. PV_KEY_RECOVERY_SIZE bytes, not NUL-terminated. The
 * same format as systemd-cryptenroll's recovery keys.
 */
int pv_key_recovery_new(struct pv_secret **ret_secret, struct pv_error *err);

/*
 * The canonical form of a recovery key as typed: any case, dashes and blanks anywhere or none, to lower case
 * with dashes. -EINVAL when it is not one (the message tells no character of it).
 */
int pv_key_recovery_normalise(
	const struct pv_secret *typed, struct pv_secret **ret_secret, struct pv_error *err);

#endif
