/*
 * The passphrase prompt. What makes it more than a read:
 *
 * - The terminal must get its echo back whatever happens. While it is off, every signal that would end or
 * stop the process is caught; the handler only notes it. When the terminal is restored and the former
 * handlers are in force, the process sends the signal to itself.
 * - No signal may slip in between looking at the note and going to sleep: they are blocked except inside
 * ppoll(2).
 * - The bytes go from the kernel into secret memory one by one; no stdio buffer sees them.
 */
#include "key/key.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <termios.h>

static const int caught[] = {
	SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGALRM, SIGTSTP, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2};

#define NCAUGHT (sizeof(caught) / sizeof(caught[0]))

static volatile sig_atomic_t noted; /* handlers have no other way to tell */

static void note(int signal)
{
	noted = signal;
}

struct prompt {
	int fd;
	struct termios normal;
	sigset_t mask;
	struct sigaction actions[NCAUGHT];
};

static void write_text(int fd, const char *text)
{
	(void)!write(fd, text, strlen(text));
}

static void catch_signals(struct prompt *prompt)
{
	struct sigaction action = {.sa_handler = note};
	sigset_t block;

	noted = 0;
	sigemptyset(&block);
	for (size_t i = 0; i < NCAUGHT; i++)
		sigaddset(&block, caught[i]);
	pthread_sigmask(SIG_BLOCK, &block, &prompt->mask);
	sigfillset(&action.sa_mask);
	for (size_t i = 0; i < NCAUGHT; i++) {
		sigaction(caught[i], NULL, &prompt->actions[i]);
		if (prompt->actions[i].sa_handler != SIG_IGN) /* what was ignored stays so */
			sigaction(caught[i], &action, NULL);
	}
}

static void release_signals(struct prompt *prompt)
{
	for (size_t i = 0; i < NCAUGHT; i++)
		sigaction(caught[i], &prompt->actions[i], NULL);
	if (noted)
		raise(noted); /* still blocked here: delivered by the next line */
	pthread_sigmask(SIG_SETMASK, &prompt->mask, NULL);
}

/* Waits for a byte: 1 got it, 0 end of input, -EINTR a signal was noted, other -errno. */
static int read_byte(struct prompt *prompt, uint8_t *ret_byte)
{
	struct pollfd poll = {.fd = prompt->fd, .events = POLLIN};
	sigset_t open = prompt->mask;
	ssize_t n;

	/* A signal that the caller keeps blocked would otherwise make the prompt deaf to Ctrl-C. */
	sigdelset(&open, SIGINT);
	for (;;) {
		if (noted)
			return -EINTR;
		if (ppoll(&poll, 1, NULL, &open) < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		n = read(prompt->fd, ret_byte, 1);
		if (n >= 0)
			return (int)n;
		if (errno != EINTR && errno != EAGAIN)
			return -errno;
	}
}

/* Reads a line into the secret, which has room for one byte more; what is too long is read and dropped. */
static int read_line(struct prompt *prompt, struct pv_secret *secret)
{
	size_t size = 0;
	bool over = false;
	int r;

	while ((r = read_byte(prompt, &secret->data[size])) > 0) {
		if (secret->data[size] == '\n')
			break;
		if (size == PV_KEY_PROMPT_MAX)
			over = true;
		else
			size++;
	}
	if (r < 0)
		return r;
	secret->data[size] = 0;
	if (over)
		return -EMSGSIZE;
	if (!size)
		return -ENODATA;
	secret->size = size;
	return 0;
}

/* One question with the echo off. -EINTR with `*ret_signal` set when a signal ended it. */
static int ask(const char *question, struct pv_secret *secret, int *ret_signal)
{
	struct prompt prompt;
	struct termios quiet;
	int r = 0;

	prompt.fd = open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (prompt.fd < 0)
		return -ENXIO;
	catch_signals(&prompt);
	if (tcgetattr(prompt.fd, &prompt.normal) < 0) {
		r = -ENXIO;
	} else {
		quiet = prompt.normal;
		quiet.c_lflag &= ~(tcflag_t)(ECHO | ECHOE | ECHOK | ECHONL);
		quiet.c_lflag |= ICANON | ISIG;
		quiet.c_iflag |= ICRNL;
		if (tcsetattr(prompt.fd, TCSAFLUSH, &quiet) < 0)
			r = -errno;
		else {
			write_text(prompt.fd, question);
			r = read_line(&prompt, secret);
			write_text(prompt.fd, "\n");
		}
		tcsetattr(prompt.fd, TCSAFLUSH, &prompt.normal);
	}
	close(prompt.fd);
	*ret_signal = noted;
	release_signals(&prompt);
	return r;
}

static int explain(int r, struct pv_error *err)
{
	switch (r) {
	case -ENXIO:
		pv_fail(err, r, NULL, "there is no terminal to ask for the passphrase");
		pv_remedy(err, "give it with --passphrase-file (or - for standard input)");
		return r;
	case -ENODATA: return pv_fail(err, r, NULL, "an empty passphrase was given");
	case -EMSGSIZE:
		return pv_fail(err, r, NULL, "a typed passphrase has at most %u bytes", PV_KEY_PROMPT_MAX);
	case -EINTR: return pv_fail(err, r, NULL, "interrupted");
	default: return pv_fail(err, r, NULL, "cannot read from the terminal: %s", pv_strerror(r));
	}
}

int pv_key_prompt(const char *question, struct pv_secret **ret_secret, struct pv_error *err)
{
	pv_autosecret struct pv_secret *secret = NULL;
	int r, signal;

	r = pv_secret_new(PV_KEY_PROMPT_MAX + 1, &secret, err);
	if (r)
		return r;
	do
		r = ask(question, secret, &signal);
	while (r == -EINTR && (signal == SIGTSTP || signal == SIGTTIN || signal == SIGTTOU));
	if (r)
		return explain(r, err);
	*ret_secret = pv_steal_ptr(&secret);
	return 0;
}

static void say(const char *text)
{
	pv_autoclose int fd = open("/dev/tty", O_WRONLY | O_NOCTTY | O_CLOEXEC);

	if (fd >= 0)
		write_text(fd, text);
}

int pv_key_prompt_new(
	const char *question, const char *again, struct pv_secret **ret_secret, struct pv_error *err)
{
	for (int i = 0; i < 3; i++) {
		pv_autosecret struct pv_secret *first = NULL, *second = NULL;
		struct pv_error why = {0};
		int r;

		r = pv_key_prompt(question, &first, &why);
		if (r == -ENODATA) {
			say("An empty passphrase protects nothing.\n");
			continue;
		}
		if (!r)
			r = pv_key_prompt(again, &second, &why);
		if (r && r != -ENODATA) {
			if (err)
				*err = why;
			return r;
		}
		if (!r && pv_secret_equal(first, second)) {
			*ret_secret = pv_steal_ptr(&first);
			return 0;
		}
		say("They differ; once more.\n");
	}
	return pv_fail(err, -EAGAIN, NULL, "the passphrases differed three times");
}
