/*
 * The simulated disk. One thread takes requests in the order they came, so that a seed and a sequence of
 * requests always give the same faults. Completed writes sit in a log, the disk's volatile cache, until a
 * flush applies them to the device below; reads see them. A power cut applies what chance leaves of the log.
 */
#include "block/sim.h"
#include "base/cleanup.h"
#include "base/json.h"
#include "block/thread_int.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#define BLOCK 4096

struct write {
	struct write *next, *previous;
	uint64_t offset, length;
	bool discard; /* reads as zeros, has no data */
	uint8_t data[];
};

struct job {
	struct job *next;
	struct pv_bio *bio;
	uint64_t due; /* monotonic ns at which it is completed */
	int error;
};

struct queue {
	struct job *first, **last;
};

struct sim {
	struct pv_bdev bdev;
	struct pv_sim_options options;
	uint64_t random;
	struct write *oldest, *newest;
	uint8_t *allocated; /* bitmap of 4096-byte blocks that were ever written */
	uint64_t blocks, space_used;
	bool off;
	uint64_t faults, held_total;

	pthread_mutex_t lock; /* of all of it; held while a request is executed */
	pthread_cond_t more;
	struct queue queue, executed, held;
	pthread_t thread;
	bool stop;
};

static const struct pv_bdev_ops sim_ops;

static void append(struct queue *q, struct job *job)
{
	job->next = NULL;
	*q->last = job;
	q->last = &job->next;
}

static struct job *take_first(struct queue *q)
{
	struct job *job = q->first;

	if (job) {
		q->first = job->next;
		if (!q->first)
			q->last = &q->first;
	}
	return job;
}

/* Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014. */
static uint64_t next_random(struct sim *sim)
{
	uint64_t z = sim->random += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

static bool chance(struct sim *sim, double rate)
{
	/* Always draws: the sequence must not depend on which rates are set. */
	double x = (double)(next_random(sim) >> 11) / (double)(UINT64_C(1) << 53);

	if (x >= rate)
		return false;
	sim->faults++;
	return true;
}

static uint64_t below_count(struct sim *sim, uint64_t n)
{
	return n ? next_random(sim) % n : 0;
}

/* The volatile cache */

static void forget(struct sim *sim, struct write *w)
{
	*(w->previous ? &w->previous->next : &sim->oldest) = w->next;
	*(w->next ? &w->next->previous : &sim->newest) = w->previous;
	free(w);
}

static struct write *remember(struct sim *sim, uint64_t offset, uint64_t length, bool discard)
{
	struct write *w = malloc(sizeof(*w) + (discard ? 0 : length));

	if (!w)
		return NULL;
	*w = (struct write){.previous = sim->newest, .offset = offset, .length = length, .discard = discard};
	*(sim->newest ? &sim->newest->next : &sim->oldest) = w;
	sim->newest = w;
	return w;
}

/* Puts the part of `w` that lies in [offset, offset + length) into `data`. */
static void overlay(const struct write *w, uint8_t *data, uint64_t offset, uint64_t length)
{
	uint64_t from = w->offset > offset ? w->offset : offset;
	uint64_t w_end = w->offset + w->length, end = offset + length;
	uint64_t to = w_end < end ? w_end : end;

	if (from >= to)
		return;
	if (w->discard)
		memset(data + (from - offset), 0, to - from);
	else
		memcpy(data + (from - offset), w->data + (from - w->offset), to - from);
}

static int read_current(struct sim *sim, uint8_t *data, uint64_t offset, uint64_t length)
{
	int r = pv_bdev_read(sim->bdev.below, data, length, offset);

	for (const struct write *w = sim->oldest; w && r == 0; w = w->next)
		overlay(w, data, offset, length);
	return r;
}

/* [from, to) of the write reaches the medium. */
static int apply_part(struct sim *sim, const struct write *w, uint64_t from, uint64_t to)
{
	pv_autofree uint8_t *zeros = NULL;

	if (from >= to)
		return 0;
	if (!w->discard)
		return pv_bdev_write(sim->bdev.below, w->data + from, to - from, w->offset + from);
	zeros = calloc(1, to - from);
	return zeros ? pv_bdev_write(sim->bdev.below, zeros, to - from, w->offset + from) : -ENOMEM;
}

static int flush_cache(struct sim *sim)
{
	while (sim->oldest) {
		int r = apply_part(sim, sim->oldest, 0, sim->oldest->length);

		if (r < 0)
			return r;
		forget(sim, sim->oldest);
	}
	return pv_bdev_flush(sim->bdev.below);
}

/* A torn write: a beginning, or any units of it. */
static void apply_torn(struct sim *sim, const struct write *w)
{
	uint64_t unit = sim->options.atomic_unit, units = (w->length + unit - 1) / unit;
	bool prefix = next_random(sim) & 1;
	uint64_t cut = below_count(sim, units);

	for (uint64_t i = 0; i < units; i++) {
		uint64_t to = (i + 1) * unit < w->length ? (i + 1) * unit : w->length;

		if (prefix ? i < cut : next_random(sim) & 1)
			apply_part(sim, w, i * unit, to);
	}
}

static void lose_power(struct sim *sim)
{
	struct write **order;
	size_t n = 0, i = 0;

	for (const struct write *w = sim->oldest; w; w = w->next)
		n++;
	order = calloc(n + 1, sizeof(struct write *));
	for (struct write *w = sim->oldest; w && order; w = w->next)
		order[i++] = w;
	for (; i > 1; i--) {
		size_t other = below_count(sim, i);
		struct write *w = order[i - 1];

		order[i - 1] = order[other];
		order[other] = w;
	}
	/* A third each: kept, lost, torn. */
	for (i = 0; i < n && order; i++) {
		uint64_t fate = below_count(sim, 3);

		if (fate == 0)
			apply_part(sim, order[i], 0, order[i]->length);
		else if (fate == 1)
			apply_torn(sim, order[i]);
	}
	free(order);
	while (sim->oldest)
		forget(sim, sim->oldest);
	sim->off = true;
}

/* One bit of what is read changes for good, in the cache if it is there, else on the medium. */
static void rot(struct sim *sim, uint64_t offset, uint64_t length)
{
	uint64_t at = offset + below_count(sim, length),
		 sector = at / sim->bdev.sector_size * sim->bdev.sector_size;
	uint8_t bit = (uint8_t)(1 << below_count(sim, 8)), data[BLOCK];

	for (struct write *w = sim->newest; w; w = w->previous)
		if (at >= w->offset && at < w->offset + w->length && !w->discard) {
			w->data[at - w->offset] ^= bit;
			return;
		}
	if (pv_bdev_read(sim->bdev.below, data, sim->bdev.sector_size, sector) < 0)
		return;
	data[at - sector] ^= bit;
	pv_bdev_write(sim->bdev.below, data, sim->bdev.sector_size, sector);
}

/* Space: counts blocks that are written for the first time. False when they would not fit. */
static bool reserve_space(struct sim *sim, uint64_t offset, uint64_t length)
{
	uint64_t first = offset / BLOCK, last = (offset + length - 1) / BLOCK, need = 0;

	for (uint64_t b = first; b <= last; b++)
		need += !(sim->allocated[b / 8] & 1 << b % 8);
	if (sim->options.space && sim->space_used + need * BLOCK > sim->options.space)
		return false;
	for (uint64_t b = first; b <= last; b++)
		sim->allocated[b / 8] |= (uint8_t)(1 << b % 8);
	sim->space_used += need * BLOCK;
	return true;
}

/* Only whole blocks come back, as from a file system. */
static void release_space(struct sim *sim, uint64_t offset, uint64_t length)
{
	for (uint64_t b = (offset + BLOCK - 1) / BLOCK; (b + 1) * BLOCK <= offset + length; b++)
		if (sim->allocated[b / 8] & 1 << b % 8) {
			sim->allocated[b / 8] &= (uint8_t) ~(1 << b % 8);
			sim->space_used -= BLOCK;
		}
}

static int do_read(struct sim *sim, const struct pv_bio *bio)
{
	pv_autofree uint8_t *data = malloc(bio->length);
	const uint8_t *from = data;
	int r;

	if (chance(sim, sim->options.read_error_rate))
		return -EIO;
	if (!data)
		return -ENOMEM;
	if (chance(sim, sim->options.bit_rot_rate))
		rot(sim, bio->offset, bio->length);
	r = read_current(sim, data, bio->offset, bio->length);
	for (int i = 0; i < bio->iovcnt && r == 0; from += bio->iov[i++].iov_len)
		memcpy(bio->iov[i].iov_base, from, bio->iov[i].iov_len);
	return r;
}

static int do_write(struct sim *sim, const struct pv_bio *bio)
{
	struct write *w;
	uint8_t *to;

	if (chance(sim, sim->options.write_error_rate))
		return -EIO;
	if (!reserve_space(sim, bio->offset, bio->length))
		return -ENOSPC;
	w = remember(sim, bio->offset, bio->length, false);
	if (!w)
		return -ENOMEM;
	to = w->data;
	if (bio->op == PV_BIO_WRITE_ZEROES)
		memset(to, 0, bio->length);
	for (int i = 0; bio->op == PV_BIO_WRITE && i < bio->iovcnt; to += bio->iov[i++].iov_len)
		memcpy(to, bio->iov[i].iov_base, bio->iov[i].iov_len);
	return 0;
}

static int execute(struct sim *sim, const struct pv_bio *bio)
{
	if (sim->off)
		return -EIO;
	switch (bio->op) {
	case PV_BIO_READ: return do_read(sim, bio);
	case PV_BIO_WRITE:
	case PV_BIO_WRITE_ZEROES: return do_write(sim, bio);
	case PV_BIO_FLUSH:
		/* A failed one leaves all in the cache; the device has failed, so only a power cut decides on
		 * it. */
		return chance(sim, sim->options.flush_error_rate) ? -EIO : flush_cache(sim);
	case PV_BIO_DISCARD:
		release_space(sim, bio->offset, bio->length);
		return remember(sim, bio->offset, bio->length, true) ? 0 : -ENOMEM;
	}
	return -EINVAL;
}

/* The thread */

static uint64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* The executed job that is due first. *ret_due is when, if none is due now. */
static struct job *take_due(struct sim *sim, uint64_t *ret_due)
{
	struct job **first = NULL, *job;

	for (struct job **p = &sim->executed.first; *p; p = &(*p)->next)
		if (!first || (*p)->due < (*first)->due)
			first = p;
	*ret_due = first ? (*first)->due : 0;
	if (!first || (*first)->due > now())
		return NULL;
	job = *first;
	*first = job->next;
	for (sim->executed.last = &sim->executed.first; *sim->executed.last;)
		sim->executed.last = &(*sim->executed.last)->next;
	return job;
}

static void wait_until(struct sim *sim, uint64_t due)
{
	struct timespec ts = {.tv_sec = (time_t)(due / 1000000000), .tv_nsec = (long)(due % 1000000000)};

	if (due)
		pthread_cond_timedwait(&sim->more, &sim->lock, &ts);
	else
		pthread_cond_wait(&sim->more, &sim->lock);
}

static void retry_held(struct sim *sim)
{
	struct job *job;

	while ((job = take_first(&sim->held)))
		append(&sim->queue, job);
	pv_bdev_set_full(&sim->bdev, false);
	pthread_cond_signal(&sim->more);
}

static void *run(void *arg)
{
	struct sim *sim = arg;

	pthread_mutex_lock(&sim->lock);
	while (!sim->stop) {
		uint64_t due;
		struct job *job = take_due(sim, &due);

		if (job) {
			pthread_mutex_unlock(&sim->lock);
			pv_bio_done(&sim->bdev, job->bio, job->error);
			free(job);
			pthread_mutex_lock(&sim->lock);
			continue;
		}
		job = take_first(&sim->queue);
		if (!job && sim->held.first && sim->bdev.closing) {
			retry_held(sim);
			continue;
		}
		if (!job) {
			/* Closing does not signal. */
			if (sim->held.first && due == 0)
				due = now() + 50000000;
			wait_until(sim, due);
			continue;
		}
		job->error = execute(sim, job->bio);
		if (job->error == -ENOSPC && sim->options.hold && !sim->bdev.closing) {
			append(&sim->held, job);
			sim->held_total++;
			pv_bdev_set_full(&sim->bdev, true);
			continue;
		}
		job->due = sim->options.delay_us ? now() + 1000 * below_count(sim, sim->options.delay_us) : 0;
		append(&sim->executed, job);
	}
	pthread_mutex_unlock(&sim->lock);
	return NULL;
}

static void sim_submit(struct pv_bdev *bdev, struct pv_bio *bio)
{
	struct sim *sim = (struct sim *)bdev;
	struct job *job = calloc(1, sizeof(*job));

	if (!job) {
		pv_bio_done(bdev, bio, -ENOMEM);
		return;
	}
	job->bio = bio;
	PV_LOCK_SCOPE(&sim->lock);
	append(&sim->queue, job);
	/* Space given back lets held writes be tried again, after it in the queue. */
	if (bio->op == PV_BIO_DISCARD && sim->held.first)
		retry_held(sim);
	pthread_cond_signal(&sim->more);
}

static int sim_refresh(struct pv_bdev *bdev, struct pv_error *err)
{
	struct sim *sim = (struct sim *)bdev;
	uint64_t blocks = (bdev->below->size + BLOCK - 1) / BLOCK;
	uint8_t *bigger;

	pthread_mutex_lock(&sim->lock);
	if (blocks > sim->blocks) {
		bigger = realloc(sim->allocated, blocks / 8 + 1);
		if (!bigger) {
			pthread_mutex_unlock(&sim->lock);
			return pv_fail(err, -ENOMEM, bdev->label, "out of memory");
		}
		memset(bigger + sim->blocks / 8 + 1, 0, blocks / 8 - sim->blocks / 8);
		sim->allocated = bigger;
		sim->blocks = blocks;
	}
	pthread_mutex_unlock(&sim->lock);
	pv_bdev_set_size(bdev, bdev->below->size);
	return 0;
}

static void sim_describe(struct pv_bdev *bdev, struct json_object *into)
{
	struct sim *sim = (struct sim *)bdev;

	PV_LOCK_SCOPE(&sim->lock);
	pv_json_add_u64(into, "faults", sim->faults);
	pv_json_add_u64(into, "space_used", sim->space_used);
	pv_json_add_u64(into, "held_total", sim->held_total);
}

static void sim_close(struct pv_bdev *bdev)
{
	struct sim *sim = (struct sim *)bdev;

	pthread_mutex_lock(&sim->lock);
	/* Power stays on: what was not flushed is not lost by closing. */
	if (!sim->off && !bdev->failed)
		flush_cache(sim);
	sim->stop = true;
	pthread_cond_signal(&sim->more);
	pthread_mutex_unlock(&sim->lock);
	pthread_join(sim->thread, NULL);
	while (sim->oldest)
		forget(sim, sim->oldest);
	free(sim->allocated);
	pthread_cond_destroy(&sim->more);
	pthread_mutex_destroy(&sim->lock);
	pv_bdev_fini(bdev);
	free(sim);
}

static const struct pv_bdev_ops sim_ops = {.name = "sim",
	.submit = sim_submit,
	.refresh = sim_refresh,
	.describe = sim_describe,
	.close = sim_close};

static struct sim *find(struct pv_bdev *bdev)
{
	while (bdev && bdev->ops != &sim_ops)
		bdev = bdev->below;
	return (struct sim *)bdev;
}

static void set_options(struct sim *sim, const struct pv_sim_options *options)
{
	sim->options = *options;
	if (sim->options.atomic_unit == 0)
		sim->options.atomic_unit = 512;
}

int pv_sim_open(struct pv_bdev *below, const struct pv_sim_options *options, struct pv_bdev **ret_bdev,
	struct pv_error *err)
{
	struct sim *sim;
	pthread_condattr_t monotonic;

	if (options->atomic_unit % below->sector_size || below->sector_size > BLOCK)
		return pv_fail(
			err, -EINVAL, below->label, "%u is no unit of torn writes", options->atomic_unit);
	sim = calloc(1, sizeof(*sim));
	if (!sim)
		return pv_fail(err, -ENOMEM, below->label, "out of memory");
	sim->blocks = (below->size + BLOCK - 1) / BLOCK;
	sim->allocated = calloc(1, sim->blocks / 8 + 1);
	set_options(sim, options);
	sim->random = options->seed;
	sim->queue.last = &sim->queue.first;
	sim->executed.last = &sim->executed.first;
	sim->held.last = &sim->held.first;
	pthread_mutex_init(&sim->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&sim->more, &monotonic);
	pthread_condattr_destroy(&monotonic);
	if (!sim->allocated ||
		pv_bdev_init(&sim->bdev, &sim_ops, NULL, below, below->size, below->sector_size) < 0) {
		free(sim->allocated);
		free(sim);
		return pv_fail(err, -ENOMEM, below->label, "out of memory");
	}
	sim->bdev.can_discard = !below->read_only;
	if (pv_thread_start(&sim->thread, "pv-sim", run, sim) < 0) {
		pv_bdev_fini(&sim->bdev);
		free(sim->allocated);
		free(sim);
		return pv_fail(err, -EAGAIN, below->label, "cannot start a thread");
	}
	*ret_bdev = &sim->bdev;
	return 0;
}

void pv_sim_power_cut(struct pv_bdev *bdev)
{
	struct sim *sim = find(bdev);

	if (!sim)
		return;
	PV_LOCK_SCOPE(&sim->lock);
	if (sim->off)
		return;
	lose_power(sim);
	/* Nobody hears of what was done and not yet told. */
	for (struct job *job = sim->executed.first; job; job = job->next)
		job->error = -EIO;
	retry_held(sim);
}

void pv_sim_power_on(struct pv_bdev *bdev)
{
	struct sim *sim = find(bdev);

	if (!sim)
		return;
	PV_LOCK_SCOPE(&sim->lock);
	sim->off = false;
	for (struct pv_bdev *b = &sim->bdev; b; b = b->above)
		b->failed = false;
}

void pv_sim_set(struct pv_bdev *bdev, const struct pv_sim_options *options)
{
	struct sim *sim = find(bdev);
	uint64_t seed;

	if (!sim)
		return;
	PV_LOCK_SCOPE(&sim->lock);
	seed = sim->options.seed;
	set_options(sim, options);
	sim->options.seed = seed;
	retry_held(sim);
}

/* Options as text */

static int parse_rate(const char *text, double *ret_rate)
{
	char *end;
	double x = strtod(text, &end);

	if (end == text || *end || !(x >= 0 && x <= 1))
		return -EINVAL;
	*ret_rate = x;
	return 0;
}

static int parse_number(const char *text, uint64_t max, uint64_t *ret_number)
{
	char *end;
	uint64_t x;

	errno = 0;
	x = strtoull(text, &end, 10);
	if (*text < '0' || *text > '9' || *end || errno || x > max)
		return -EINVAL;
	*ret_number = x;
	return 0;
}

static int parse_word(const char *name, const char *value, struct pv_sim_options *o)
{
	const struct {
		const char *name;
		double *rate;
	} rates[] = {{"read_error", &o->read_error_rate}, {"write_error", &o->write_error_rate},
		{"flush_error", &o->flush_error_rate}, {"bit_rot", &o->bit_rot_rate}};
	uint64_t n = 0;
	int r;

	for (size_t i = 0; i < sizeof(rates) / sizeof(rates[0]); i++)
		if (strcmp(name, rates[i].name) == 0)
			return parse_rate(value, rates[i].rate);
	if (strcmp(name, "seed") == 0)
		return parse_number(value, UINT64_MAX, &o->seed);
	if (strcmp(name, "space") == 0)
		return parse_number(value, UINT64_MAX, &o->space);
	if (strcmp(name, "hold") == 0) {
		r = parse_number(value, 1, &n);
		o->hold = n;
		return r;
	}
	if (strcmp(name, "delay_us") == 0) {
		r = parse_number(value, 60000000, &n);
		o->delay_us = (unsigned)n;
		return r;
	}
	if (strcmp(name, "atomic_unit") == 0) {
		r = parse_number(value, 1 << 20, &n);
		o->atomic_unit = (uint32_t)n;
		return r < 0 || n % 512 ? -EINVAL : 0;
	}
	return -EINVAL;
}

int pv_sim_parse(const char *text, struct pv_sim_options *ret_options, struct pv_error *err)
{
	struct pv_sim_options options = {0};
	pv_autofree char *copy = strdup(text);
	char *rest = copy, *word;

	if (!copy)
		return pv_fail(err, -ENOMEM, NULL, "out of memory");
	while ((word = strsep(&rest, ","))) {
		char *value = strchr(word, '=');

		if (!*word)
			continue;
		if (value)
			*value++ = '\0';
		if (!value || parse_word(word, value, &options) < 0)
			return pv_fail(err, -EINVAL, NULL,
				"simulated disk: \"%s\" is unknown or has a wrong value", word);
	}
	*ret_options = options;
	return 0;
}
