/*
 * The log of keeper, engine and workers: one line an event, to stderr or to a file set once at start.
 * It must never hold a secret, nor a dataset, snapshot or file name (those show the volume's inside).
 */
#ifndef PV_BASE_LOG_H
#define PV_BASE_LOG_H

enum pv_log_level { PV_LOG_ERROR, PV_LOG_WARNING, PV_LOG_INFO, PV_LOG_DEBUG };

/* `who` prefixes every line ("pvold", "pvol-engine T"). `fd` is borrowed for the life of the process; -1 =
 * stderr. */
void pv_log_init(const char *who, int fd, enum pv_log_level max);

/* Writes one line with a UTC time stamp in one write(2). Thread-safe. Appends no errno text by itself. */
void pv_log(enum pv_log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
