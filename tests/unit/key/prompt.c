/*
 * The prompt on a real (pseudo) terminal: a child with a controlling terminal asks, this side types and
 * watches what is echoed and whether the terminal is as before.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "key/key.h"

#include <errno.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

struct session {
	int master;
	pid_t pid;
	char seen[4096]; /* all that the terminal showed */
	size_t size;
	size_t read; /* how far expect() has come */
};

static void on_interrupt(int signal)
{
	(void)!write(STDOUT_FILENO, "handled\n", 8);
}

/* In the child: 0 when the result is what the test wants. */
typedef int (*child_fn)(void);

static void start(struct session *s, child_fn fn)
{
	memset(s, 0, sizeof(*s));
	s->pid = forkpty(&s->master, NULL, NULL, NULL);
	assert_true(s->pid >= 0);
	if (s->pid == 0)
		_exit(fn());
}

/* Reads what the terminal shows until `text` appears; ten seconds are ample. */
static void expect(struct session *s, const char *text)
{
	struct pollfd poll_master = {.fd = s->master, .events = POLLIN};
	ssize_t n;

	while (!strstr(s->seen + s->read, text)) {
		if (poll(&poll_master, 1, 10000) <= 0)
			fail_msg("the terminal does not show '%s' but '%s'", text, s->seen + s->read);
		n = read(s->master, s->seen + s->size, sizeof(s->seen) - 1 - s->size);
		if (n <= 0)
			fail_msg("the terminal was closed before '%s', it showed '%s'", text, s->seen);
		s->size += (size_t)n;
	}
	s->read = (size_t)(strstr(s->seen + s->read, text) - s->seen) + strlen(text);
}

static void type(struct session *s, const char *text)
{
	assert_int_equal(write(s->master, text, strlen(text)), (ssize_t)strlen(text));
}

static bool echoes(const struct session *s)
{
	struct termios t;

	assert_int_equal(tcgetattr(s->master, &t), 0); /* of the slave side */
	return t.c_lflag & ECHO;
}

static int finish(struct session *s)
{
	int status;

	type(s, "\n");
	assert_int_equal(waitpid(s->pid, &status, 0), s->pid);
	close(s->master);
	return status;
}

static int is(struct pv_secret *secret, const char *text)
{
	return secret->size == strlen(text) && !memcmp(secret->data, text, secret->size) ? 0 : 9;
}

/* Says so and stays until a line is typed, so that the terminal can be looked at. */
static int done(int result)
{
	char c;

	(void)!write(STDOUT_FILENO, "done\n", 5);
	(void)!read(STDIN_FILENO, &c, 1);
	return result;
}

static int ask_once(void)
{
	struct pv_secret *secret = NULL;
	int r = pv_key_prompt("Passphrase: ", &secret, NULL);

	return done(r ? -r : is(secret, "s3cret w\xc3\xb6rd"));
}

static void typed_passphrase_is_not_echoed(void **state)
{
	struct session s;

	start(&s, ask_once);
	expect(&s, "Passphrase: ");
	assert_false(echoes(&s));
	type(&s, "s3cret w\xc3\xb6rd\n");
	expect(&s, "done");
	assert_true(echoes(&s));
	assert_null(strstr(s.seen, "s3cret"));
	assert_int_equal(finish(&s), 0);
}

static void too_long_and_empty_are_refused(void **state)
{
	struct session s;
	char line[600];

	start(&s, ask_once);
	expect(&s, "Passphrase: ");
	memset(line, 'x', sizeof(line));
	line[513] = '\n';
	line[514] = '\0';
	type(&s, line);
	expect(&s, "done");
	assert_int_equal(WEXITSTATUS(finish(&s)), EMSGSIZE);
	start(&s, ask_once);
	expect(&s, "Passphrase: ");
	type(&s, "\n");
	expect(&s, "done");
	assert_int_equal(WEXITSTATUS(finish(&s)), ENODATA);
}

static int ask_new(void)
{
	struct pv_secret *secret = NULL;
	int r = pv_key_prompt_new("New: ", "Again: ", &secret, NULL);

	return done(r ? -r : is(secret, "right"));
}

static void new_passphrase_is_asked_twice(void **state)
{
	struct session s;

	start(&s, ask_new);
	expect(&s, "New: ");
	type(&s, "right\n");
	expect(&s, "Again: ");
	type(&s, "wrong\n");
	expect(&s, "differ");
	expect(&s, "New: ");
	type(&s, "right\n");
	expect(&s, "Again: ");
	type(&s, "right\n");
	expect(&s, "done");
	assert_int_equal(finish(&s), 0);
}

static void interrupt_restores_the_terminal_and_kills(void **state)
{
	struct session s;
	int status;

	start(&s, ask_once);
	expect(&s, "Passphrase: ");
	assert_false(echoes(&s));
	type(&s, "half\003"); /* Ctrl-C */
	assert_int_equal(waitpid(s.pid, &status, 0), s.pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGINT);
	assert_true(echoes(&s));
	close(s.master);
}

static int ask_with_handler(void)
{
	struct sigaction action = {.sa_handler = on_interrupt};
	struct pv_secret *secret = NULL;
	int r;

	sigaction(SIGINT, &action, NULL);
	r = pv_key_prompt("Passphrase: ", &secret, NULL);
	return done(-r);
}

static void interrupt_reaches_the_callers_handler(void **state)
{
	struct session s;

	start(&s, ask_with_handler);
	expect(&s, "Passphrase: ");
	assert_false(echoes(&s));
	type(&s, "\003");
	expect(&s, "handled");
	expect(&s, "done");
	assert_true(echoes(&s));
	assert_int_equal(WEXITSTATUS(finish(&s)), EINTR);
}

static void stop_and_continue_asks_again(void **state)
{
	struct session s;
	int status;

	start(&s, ask_once);
	expect(&s, "Passphrase: ");
	/* By kill: the kernel does not stop the orphaned process group of a session's leader by Ctrl-Z. */
	kill(s.pid, SIGSTOP);
	assert_int_equal(waitpid(s.pid, &status, WUNTRACED), s.pid);
	assert_true(WIFSTOPPED(status));
	kill(s.pid, SIGCONT);
	type(&s, "\032"); /* Ctrl-Z: noted, sent again, ignored by the kernel here, asked again */
	expect(&s, "Passphrase: ");
	type(&s, "s3cret w\xc3\xb6rd\n");
	expect(&s, "done");
	assert_true(echoes(&s));
	assert_int_equal(finish(&s), 0);
}

static int ask_without_terminal(void)
{
	struct pv_secret *secret = NULL;
	struct pv_error err = {0};
	int r = pv_key_prompt("Passphrase: ", &secret, &err);

	return r == -ENXIO && strstr(err.remedy, "--passphrase-file") ? 0 : 1;
}

static void no_terminal_is_a_clear_error(void **state)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		setsid();
		_exit(ask_without_terminal());
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(typed_passphrase_is_not_echoed),
		cmocka_unit_test(too_long_and_empty_are_refused),
		cmocka_unit_test(new_passphrase_is_asked_twice),
		cmocka_unit_test(interrupt_restores_the_terminal_and_kills),
		cmocka_unit_test(interrupt_reaches_the_callers_handler),
		cmocka_unit_test(stop_and_continue_asks_again),
		cmocka_unit_test(no_terminal_is_a_clear_error),
	};

	signal(SIGPIPE, SIG_IGN);
	alarm(100); /* instead of hanging */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
