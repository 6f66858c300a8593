/*
 * One line an event, in one write(2), so that lines of several threads and processes do not mix.
 */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* The one piece of process-wide state below the daemon: set once at start, before any thread. */
static struct {
	char who[64];
	int fd;
	enum pv_log_level max;
} sink = {.who = "pvol", .fd = STDERR_FILENO, .max = PV_LOG_INFO};

void pv_log_init(const char *who, int fd, enum pv_log_level max)
{
	snprintf(sink.who, sizeof(sink.who), "%s", who);
	sink.fd = fd < 0 ? STDERR_FILENO : fd;
	sink.max = max;
}

void pv_log(enum pv_log_level level, const char *fmt, ...)
{
	static const char *const words[] = {"error", "warning", "info", "debug"};
	char line[2048];
	struct timespec ts;
	struct tm tm;
	size_t start, n;
	va_list ap;
	int len;

	if (level > sink.max)
		return;
	clock_gettime(CLOCK_REALTIME, &ts);
	gmtime_r(&ts.tv_sec, &tm);
	n = strftime(line, 32, "%Y-%m-%dT%H:%M:%S", &tm);
	n += (size_t)snprintf(line + n, 160, ".%03ldZ %s[%d] %s: ", ts.tv_nsec / 1000000, sink.who,
		(int)getpid(), words[level]);
	start = n;
	va_start(ap, fmt);
	len = vsnprintf(line + n, sizeof(line) - n - 1, fmt, ap);
	va_end(ap);
	if (len < 0)
		return;
	n += strlen(line + n);
	/* A label may hold any byte: it must not be able to forge a line or drive a terminal. */
	for (size_t i = start; i < n; i++)
		if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
			line[i] = '?';
	line[n++] = '\n';
	if (write(sink.fd, line, n) < 0)
		return; /* nowhere left to tell it */
}
