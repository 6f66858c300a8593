/*
 * The crypt device.
 *
 * A write is cut into pieces of at most 1 MiB; each gets bounce memory, is encrypted into it and written
 * below; the request completes with its last piece. Bounce memory is limited: a piece that finds none waits
 * in one of two lines, small pieces (the intent log's, labels) and large ones, of which the large may not use
 * the reserve. Memory that comes back lets waiting pieces go, on a worker thread. No piece waits while it
 * holds memory, and pieces below complete without us: so every piece goes at some time.
 *
 * A read goes below with the caller's own buffers and is decrypted there in place: at once by the thread that
 * completes it when it is short (waking a worker costs more), else by a worker.
 */
#include "block/crypt.h"
#include "base/cleanup.h"
#include "base/json.h"
#include "block/thread_int.h"
#include "cipher/cipher.h"

#include <errno.h>
#include <string.h>

#define PIECE_MAX (UINT64_C(1) << 20)
#define CLASS_MIN 4096 /* the smallest bounce buffer; each class is twice the one before */
#define CLASSES 9
#define BOUNCE_LIMIT (UINT64_C(64) << 20)
#define BOUNCE_RESERVE (UINT64_C(4) << 20)
#define SMALL_MAX (UINT64_C(128) << 10) /* a piece that may use the reserve */
#define INLINE_MAX (UINT64_C(64) << 10) /* a read that is decrypted where it completes */
#define MAX_WORKERS 8

struct crypt;

/* A request as the caller sees it. */
struct request {
	struct crypt *crypt;
	struct pv_bio *bio;
	_Atomic unsigned pending; /* pieces and one for the submitter */
	_Atomic int error;
};

/* What goes below; also the job of a worker. */
struct piece {
	struct piece *next;
	struct request *request;
	struct pv_bio bio;
	struct iovec iov;
	void *bounce;
	uint64_t from; /* offset of the piece in the request's data */
};

struct line {
	struct piece *first, **last;
};

struct crypt {
	struct pv_bdev bdev;
	struct pv_segment segment;
	struct pv_cipher *cipher;

	pthread_mutex_t lock; /* of the rest */
	pthread_cond_t work;
	struct line reads;        /* to be decrypted */
	struct line small, large; /* writes without memory */
	struct free_buffer {
		struct free_buffer *next;
	} * cache[CLASSES];
	uint64_t used, cached; /* bytes */
	uint64_t waited;       /* pieces that had to wait, for status */
	pthread_t threads[MAX_WORKERS];
	unsigned started, idle, limit;
	bool stop;
};

static void push(struct line *line, struct piece *piece)
{
	piece->next = NULL;
	*line->last = piece;
	line->last = &piece->next;
}

static struct piece *pop(struct line *line)
{
	struct piece *piece = line->first;

	if (piece) {
		line->first = piece->next;
		if (!line->first)
			line->last = &line->first;
	}
	return piece;
}

/* Bounce memory. All with the lock held. */

static unsigned class_of(uint64_t length)
{
	unsigned class = 0;

	while ((uint64_t)CLASS_MIN << class < length)
		class ++;
	return class;
}

static void drop_cache(struct crypt *c)
{
	for (unsigned class = 0; class < CLASSES; class ++)
		while (c->cache[class]) {
			struct free_buffer *b = c->cache[class];

			c->cache[class] = b->next;
			free(b);
		}
	c->cached = 0;
}

static void *take_bounce(struct crypt *c, uint64_t length)
{
	unsigned class = class_of(length);
	uint64_t size = (uint64_t)CLASS_MIN << class;
	uint64_t limit = length > SMALL_MAX ? BOUNCE_LIMIT - BOUNCE_RESERVE : BOUNCE_LIMIT;
	struct free_buffer *b = c->cache[class];
	void *memory;

	if (c->used + size > limit)
		return NULL;
	if (b) {
		c->cache[class] = b->next;
		c->cached -= size;
		c->used += size;
		return b;
	}
	if (c->used + c->cached + size > BOUNCE_LIMIT)
		drop_cache(c);
	if (posix_memalign(&memory, 4096, size))
		return NULL;
	c->used += size;
	return memory;
}

static void return_bounce(struct crypt *c, void *memory, uint64_t length)
{
	unsigned class = class_of(length);
	struct free_buffer *b = memory;

	c->used -= (uint64_t)CLASS_MIN << class;
	c->cached += (uint64_t)CLASS_MIN << class;
	b->next = c->cache[class];
	c->cache[class] = b;
}

/* Requests */

static void put_request(struct request *request, int error)
{
	if (error)
		request->error = error;
	if (--request->pending == 0) {
		struct pv_bdev *bdev = &request->crypt->bdev;
		struct pv_bio *bio = request->bio;

		error = request->error;
		free(request);
		pv_bio_done(bdev, bio, error);
	}
}

static uint64_t iv_of(const struct crypt *c, uint64_t offset)
{
	return offset / 512 + c->segment.iv_tweak;
}

/* A place in a vector. */
struct cursor {
	const struct iovec *iov;
	size_t at;
};

static struct cursor cursor_at(const struct iovec *iov, uint64_t offset)
{
	while (offset >= iov->iov_len && offset)
		offset -= iov++->iov_len;
	return (struct cursor){iov, offset};
}

/* Copies between the vector and a linear buffer, and advances. */
static void gather(struct cursor *cursor, uint8_t *linear, size_t length, bool to_vector)
{
	while (length) {
		size_t n = cursor->iov->iov_len - cursor->at;
		uint8_t *p = (uint8_t *)cursor->iov->iov_base + cursor->at;

		if (n > length)
			n = length;
		if (to_vector)
			memcpy(p, linear, n);
		else
			memcpy(linear, p, n);
		linear += n;
		length -= n;
		cursor->at += n;
		if (cursor->at == cursor->iov->iov_len && length) {
			cursor->iov++;
			cursor->at = 0;
		}
	}
}

/* Whole sectors that lie in one piece of memory from the cursor on, at most `left` bytes; *ret_data is where.
 */
static size_t run_at(struct cursor *cursor, size_t left, uint32_t sector, uint8_t **ret_data)
{
	size_t n;

	while (cursor->at == cursor->iov->iov_len) {
		cursor->iov++;
		cursor->at = 0;
	}
	n = cursor->iov->iov_len - cursor->at;
	if (n > left)
		n = left;
	*ret_data = (uint8_t *)cursor->iov->iov_base + cursor->at;
	return n / sector * sector;
}

static int encrypt_piece(struct crypt *c, struct piece *piece)
{
	const struct pv_bio *bio = piece->request->bio;
	uint32_t sector = c->segment.sector_size;
	uint64_t iv = iv_of(c, bio->offset + piece->from);
	uint8_t *out = piece->bounce;
	size_t left = piece->bio.length;
	struct cursor cursor;
	int r = 0;

	if (bio->op == PV_BIO_WRITE_ZEROES) {
		memset(out, 0, left);
		return pv_cipher_encrypt(c->cipher, iv, out, out, left);
	}
	cursor = cursor_at(bio->iov, piece->from);
	while (left && r == 0) {
		uint8_t *in;
		size_t n = run_at(&cursor, left, sector, &in);

		if (n) {
			cursor.at += n;
		} else {
			/* A sector in several pieces of memory. */
			n = sector;
			gather(&cursor, out, n, false);
			in = out;
		}
		r = pv_cipher_encrypt(c->cipher, iv, in, out, n);
		out += n;
		left -= n;
		iv += n / 512;
	}
	return r;
}

static int decrypt_in_place(struct crypt *c, const struct pv_bio *bio)
{
	uint32_t sector = c->segment.sector_size;
	uint64_t iv = iv_of(c, bio->offset);
	size_t left = bio->length;
	struct cursor cursor = {bio->iov, 0};
	uint8_t whole[4096];
	int r = 0;

	while (left && r == 0) {
		uint8_t *data;
		size_t n = run_at(&cursor, left, sector, &data);

		if (n) {
			r = pv_cipher_decrypt(c->cipher, iv, data, data, n);
			cursor.at += n;
		} else {
			struct cursor start = cursor;

			n = sector;
			gather(&cursor, whole, n, false);
			r = pv_cipher_decrypt(c->cipher, iv, whole, whole, n);
			gather(&start, whole, n, true);
		}
		left -= n;
		iv += n / 512;
	}
	return r;
}

/* Writes */

static void wake_worker(struct crypt *c);

static void wrote(struct pv_bio *bio, int error)
{
	struct piece *piece = bio->private;
	struct request *request = piece->request;
	struct crypt *c = request->crypt;

	pthread_mutex_lock(&c->lock);
	if (piece->bounce)
		return_bounce(c, piece->bounce, bio->length);
	if (c->small.first || c->large.first)
		wake_worker(c);
	pthread_mutex_unlock(&c->lock);
	free(piece);
	put_request(request, error);
}

/* The piece has its memory, or there is none to wait for. */
static void write_piece(struct crypt *c, struct piece *piece)
{
	int r = piece->bounce ? encrypt_piece(c, piece) : -ENOMEM;

	piece->iov = (struct iovec){piece->bounce, piece->bio.length};
	piece->bio.iov = &piece->iov;
	piece->bio.iovcnt = 1;
	if (r < 0)
		wrote(&piece->bio, r);
	else
		pv_bdev_submit(c->bdev.below, &piece->bio);
}

static void start_piece(struct crypt *c, struct piece *piece)
{
	struct line *line = piece->bio.length > SMALL_MAX ? &c->large : &c->small;
	bool waits = false;

	pthread_mutex_lock(&c->lock);
	/* First come, first served within a line. */
	if (!line->first)
		piece->bounce = take_bounce(c, piece->bio.length);
	/* With none in use, none will come back. */
	if (!piece->bounce && (line->first || c->used)) {
		waits = true;
		push(line, piece);
		c->waited++;
	}
	pthread_mutex_unlock(&c->lock);
	if (!waits)
		write_piece(c, piece);
}

static void submit_write(struct crypt *c, struct pv_bio *bio)
{
	struct request *request = calloc(1, sizeof(*request));
	int error = 0;

	if (!request) {
		pv_bio_done(&c->bdev, bio, -ENOMEM);
		return;
	}
	*request = (struct request){.crypt = c, .bio = bio, .pending = 1};
	for (uint64_t from = 0, length; from < bio->length; from += length) {
		struct piece *piece = calloc(1, sizeof(*piece));

		length = bio->length - from;
		if (length > PIECE_MAX)
			length = PIECE_MAX;
		if (!piece) {
			error = -ENOMEM;
			break;
		}
		piece->request = request;
		piece->from = from;
		piece->bio = (struct pv_bio){.op = PV_BIO_WRITE,
			.offset = c->segment.offset + bio->offset + from,
			.length = length,
			.done = wrote,
			.private = piece};
		request->pending++;
		start_piece(c, piece);
	}
	put_request(request, error);
}

/* Reads, and what passes as it is */

static void finish_read(struct crypt *c, struct piece *piece)
{
	struct pv_bio *bio = piece->request->bio;
	int r = decrypt_in_place(c, bio);

	free(piece->request);
	free(piece);
	pv_bio_done(&c->bdev, bio, r);
}

static void was_read(struct pv_bio *below, int error)
{
	struct piece *piece = below->private;
	struct crypt *c = piece->request->crypt;
	struct pv_bio *bio = piece->request->bio;

	if (error) {
		free(piece->request);
		free(piece);
		pv_bio_done(&c->bdev, bio, error);
	} else if (bio->length <= INLINE_MAX) {
		finish_read(c, piece);
	} else {
		pthread_mutex_lock(&c->lock);
		push(&c->reads, piece);
		wake_worker(c);
		pthread_mutex_unlock(&c->lock);
	}
}

static void passed(struct pv_bio *below, int error)
{
	struct piece *piece = below->private;
	struct pv_bdev *bdev = &piece->request->crypt->bdev;
	struct pv_bio *bio = piece->request->bio;

	free(piece->request);
	free(piece);
	pv_bio_done(bdev, bio, error);
}

static void submit_other(struct crypt *c, struct pv_bio *bio)
{
	struct request *request = calloc(1, sizeof(*request));
	struct piece *piece = calloc(1, sizeof(*piece));

	if (!request || !piece) {
		free(request);
		free(piece);
		pv_bio_done(&c->bdev, bio, -ENOMEM);
		return;
	}
	request->crypt = c;
	request->bio = bio;
	piece->request = request;
	piece->bio = *bio;
	piece->bio.offset += c->segment.offset;
	piece->bio.done = bio->op == PV_BIO_READ ? was_read : passed;
	piece->bio.private = piece;
	pv_bdev_submit(c->bdev.below, &piece->bio);
}

static void crypt_submit(struct pv_bdev *bdev, struct pv_bio *bio)
{
	struct crypt *c = (struct crypt *)bdev;

	if (bio->op == PV_BIO_WRITE || bio->op == PV_BIO_WRITE_ZEROES)
		submit_write(c, bio);
	else
		submit_other(c, bio);
}

/* Workers */

/* The next waiting write that memory was found for, or for which there is none to come. With the lock held.
 */
static struct piece *next_write(struct crypt *c)
{
	struct line *lines[] = {&c->small, &c->large};

	for (size_t i = 0; i < 2; i++) {
		struct piece *piece = lines[i]->first;

		if (!piece)
			continue;
		piece->bounce = take_bounce(c, piece->bio.length);
		if (piece->bounce || c->used == 0)
			return pop(lines[i]);
	}
	return NULL;
}

static void *work(void *arg)
{
	struct crypt *c = arg;

	pthread_mutex_lock(&c->lock);
	while (!c->stop) {
		struct piece *piece = pop(&c->reads);
		bool is_read = piece != NULL;

		if (!piece)
			piece = next_write(c);
		if (!piece) {
			c->idle++;
			pthread_cond_wait(&c->work, &c->lock);
			c->idle--;
			continue;
		}
		pthread_mutex_unlock(&c->lock);
		if (is_read)
			finish_read(c, piece);
		else
			write_piece(c, piece);
		pthread_mutex_lock(&c->lock);
	}
	pthread_mutex_unlock(&c->lock);
	return NULL;
}

/* A worker that is busy looks for more work itself, so only an idle one needs waking. With the lock held. */
static void wake_worker(struct crypt *c)
{
	if (c->idle)
		pthread_cond_signal(&c->work);
	else if (c->started < c->limit && pv_thread_start(&c->threads[c->started], "pv-crypt", work, c) == 0)
		c->started++;
}

/* Device */

/* The size of the plain view over `below`, or 0 when the segment does not fit. */
static uint64_t plain_size(const struct pv_segment *s, uint64_t below)
{
	uint64_t size = below > s->offset ? below - s->offset : 0;

	if (s->size) {
		if (s->size > size)
			return 0;
		size = s->size;
	}
	return size / s->sector_size * s->sector_size;
}

static int crypt_refresh(struct pv_bdev *bdev, struct pv_error *err)
{
	struct crypt *c = (struct crypt *)bdev;
	uint64_t size = plain_size(&c->segment, bdev->below->size);

	if (size == 0)
		return pv_fail(err, -EINVAL, bdev->label,
			"the encrypted segment reaches beyond the container's end");
	pv_bdev_set_size(bdev, size);
	return 0;
}

static void crypt_describe(struct pv_bdev *bdev, struct json_object *into)
{
	struct crypt *c = (struct crypt *)bdev;

	PV_LOCK_SCOPE(&c->lock);
	pv_json_add_string(into, "cipher", c->segment.cipher);
	pv_json_add_int(into, "key_size", c->segment.key_size);
	pv_json_add_u64(into, "offset", c->segment.offset);
	pv_json_add_u64(into, "bounce_bytes", c->used + c->cached);
	pv_json_add_u64(into, "bounce_waits", c->waited);
}

static void crypt_close(struct pv_bdev *bdev)
{
	struct crypt *c = (struct crypt *)bdev;

	pthread_mutex_lock(&c->lock);
	c->stop = true;
	pthread_cond_broadcast(&c->work);
	pthread_mutex_unlock(&c->lock);
	for (unsigned i = 0; i < c->started; i++)
		pthread_join(c->threads[i], NULL);
	drop_cache(c);
	pv_cipher_free(c->cipher);
	pthread_cond_destroy(&c->work);
	pthread_mutex_destroy(&c->lock);
	pv_bdev_fini(bdev);
	free(c);
}

static const struct pv_bdev_ops crypt_ops = {.name = "crypt",
	.submit = crypt_submit,
	.refresh = crypt_refresh,
	.describe = crypt_describe,
	.close = crypt_close};

static int check_segment(const struct pv_bdev *below, const struct pv_segment *s, const struct pv_secret *key,
	struct pv_error *err)
{
	if (s->sector_size < 512 || s->sector_size > 4096 || (s->sector_size & (s->sector_size - 1)))
		return pv_fail(err, -EINVAL, below->label, "%u is no encryption sector size", s->sector_size);
	if (s->sector_size < below->sector_size)
		return pv_fail(err, -EINVAL, below->label,
			"encryption sectors of %u bytes on a device that takes requests of %u",
			s->sector_size, below->sector_size);
	if (s->offset % below->sector_size || s->size % s->sector_size)
		return pv_fail(err, -EINVAL, below->label, "the encrypted segment is not aligned to sectors");
	if (key->size != s->key_size)
		return pv_fail(err, -EINVAL, below->label, "a key of %zu bytes for a segment that needs %u",
			key->size, s->key_size);
	if (plain_size(s, below->size) == 0)
		return pv_fail(err, -EINVAL, below->label,
			"the encrypted segment reaches beyond the container's end");
	return 0;
}

int pv_crypt_open(struct pv_bdev *below, const struct pv_segment *segment, const struct pv_secret *key,
	struct pv_bdev **ret_bdev, struct pv_error *err)
{
	long processors = sysconf(_SC_NPROCESSORS_ONLN);
	struct pv_cipher *cipher;
	struct crypt *c;
	int r;

	r = check_segment(below, segment, key, err);
	if (r == 0)
		r = pv_cipher_new(segment->cipher, key, segment->sector_size, &cipher, err);
	if (r < 0)
		return r;
	c = calloc(1, sizeof(*c));
	if (!c || pv_bdev_init(&c->bdev, &crypt_ops, NULL, below, plain_size(segment, below->size),
			  segment->sector_size) < 0) {
		pv_cipher_free(cipher);
		free(c);
		return pv_fail(err, -ENOMEM, below->label, "out of memory");
	}
	c->segment = *segment;
	c->cipher = cipher;
	c->limit = processors < 1 ? 1 : processors > MAX_WORKERS ? MAX_WORKERS : (unsigned)processors;
	c->reads.last = &c->reads.first;
	c->small.last = &c->small.first;
	c->large.last = &c->large.first;
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->work, NULL);
	*ret_bdev = &c->bdev;
	return 0;
}
