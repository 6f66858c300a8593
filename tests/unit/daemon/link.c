/* The keeper's link to an engine: answers in any order, events, timeouts, and the engine's death. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/json.h"
#include "daemon/link_int.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static struct pv_channel *engine;
static struct link *link_under_test;
static atomic_int events, closed, released;

static void on_event(struct link *link, struct json_object *event, void *private)
{
	assert_string_equal(pv_json_string(event, "event", ""), "full");
	events++;
}

static void on_closed(struct link *link, void *private)
{
	closed++;
}

static void on_release(void *private)
{
	released++;
}

static bool comes(atomic_int *counter)
{
	struct timespec pause = {.tv_nsec = 1000000};

	for (unsigned i = 0; i < 20000 && !*counter; i++)
		nanosleep(&pause, NULL);
	return *counter > 0;
}

static int setup(void **state)
{
	const struct link_ops ops = {.event = on_event, .closed = on_closed, .release = on_release};
	struct pv_channel *keeper;
	int pair[2];

	events = closed = released = 0;
	return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) ||
	       pv_channel_new(pair[0], &keeper, NULL) || pv_channel_new(pair[1], &engine, NULL) ||
	       link_new(keeper, &ops, NULL, &link_under_test, NULL);
}

static int teardown(void **state)
{
	engine = pv_channel_free(engine);
	comes(&closed);
	link_put(link_under_test);
	return comes(&released) ? 0 : -1;
}

struct caller {
	const char *method;
	int timeout_ms, r;
	char result[32];
	struct pv_error err;
	pthread_t thread;
};

static void *call(void *private)
{
	struct caller *c = private;
	struct link_call lc = {.method = c->method, .timeout_ms = c->timeout_ms};

	c->r = link_call(link_under_test, &lc, &c->err);
	if (c->r >= 0)
		strncpy(c->result, pv_json_string(lc.result, "value", ""), sizeof(c->result) - 1);
	link_call_clear(&lc);
	return NULL;
}

static void answer(struct pv_message *request)
{
	struct json_object *result = json_object_new_object();

	pv_json_add_string(result, "value", pv_json_string(request->json, "method", ""));
	pv_channel_reply(engine, pv_json_int(request->json, "id", 0), result, NULL, 0);
	json_object_put(result);
	pv_message_clear(request);
}

static void answers_in_any_order(void **state)
{
	struct caller callers[3] = {{.method = "one"}, {.method = "two"}, {.method = "three"}};
	struct pv_message requests[3];

	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&callers[i].thread, NULL, call, &callers[i]), 0);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(pv_channel_receive(engine, 20000, &requests[i], NULL), 1);
	for (unsigned i = 3; i-- > 0;)
		answer(&requests[i]);
	for (unsigned i = 0; i < 3; i++) {
		pthread_join(callers[i].thread, NULL);
		assert_int_equal(callers[i].r, 0);
		assert_string_equal(callers[i].result, callers[i].method);
	}
}

static void errors_and_events(void **state)
{
	struct caller caller = {.method = "fail"};
	struct json_object *event = json_object_new_object();
	struct pv_error err = {0};
	struct pv_message request;

	pthread_create(&caller.thread, NULL, call, &caller);
	assert_int_equal(pv_channel_receive(engine, 20000, &request, NULL), 1);
	pv_json_add_string(event, "event", "full");
	assert_int_equal(pv_channel_send(engine, event, NULL, 0, NULL), 0);
	json_object_put(event);
	pv_fail(&err, -EBUSY, "T", "in use");
	pv_channel_reply_error(engine, pv_json_int(request.json, "id", 0), &err);
	pv_message_clear(&request);
	pthread_join(caller.thread, NULL);
	assert_int_equal(caller.r, -EBUSY);
	assert_string_equal(caller.err.message, "in use");
	assert_int_equal(caller.err.exit, PV_EXIT_BUSY);
	assert_true(comes(&events));
}

/* A late answer to a call that was given up is dropped, and the next call gets its own. */
static void timeouts(void **state)
{
	struct caller late = {.method = "late", .timeout_ms = 20}, next = {.method = "next"};
	struct pv_message first, second;

	pthread_create(&late.thread, NULL, call, &late);
	pthread_join(late.thread, NULL);
	assert_int_equal(late.r, -ETIMEDOUT);
	pthread_create(&next.thread, NULL, call, &next);
	assert_int_equal(pv_channel_receive(engine, 20000, &first, NULL), 1);
	assert_int_equal(pv_channel_receive(engine, 20000, &second, NULL), 1);
	answer(&first);
	answer(&second);
	pthread_join(next.thread, NULL);
	assert_int_equal(next.r, 0);
	assert_string_equal(next.result, "next");
}

static void death(void **state)
{
	struct caller waiting = {.method = "waiting"}, after = {.method = "after"};
	struct pv_message request;

	pthread_create(&waiting.thread, NULL, call, &waiting);
	assert_int_equal(pv_channel_receive(engine, 20000, &request, NULL), 1);
	pv_message_clear(&request);
	assert_false(link_is_dead(link_under_test));
	engine = pv_channel_free(engine);
	pthread_join(waiting.thread, NULL);
	assert_int_equal(waiting.r, -ENOTCONN);
	assert_true(comes(&closed));
	assert_true(link_is_dead(link_under_test));
	call(&after);
	assert_int_equal(after.r, -ENOTCONN);
	assert_int_equal(closed, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(answers_in_any_order, setup, teardown),
		cmocka_unit_test_setup_teardown(errors_and_events, setup, teardown),
		cmocka_unit_test_setup_teardown(timeouts, setup, teardown),
		cmocka_unit_test_setup_teardown(death, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
